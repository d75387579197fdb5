import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { cruise, type ICruiseResult } from 'dependency-cruiser'
import extractConfig from 'dependency-cruiser/config-utl/extract-depcruise-config'
import { teachSwcUsing } from './swc-using.ts'

// Checks that the arrows point down: the rules for imports in `.dependency-cruiser.cjs`, and those below, which imports do not show.
// usage: node tools/boundaries.ts [folder with a src/]

/** Words that may stand in a few files only. */
const wordRules = [
  {
    name: 'certificates are assembled in workbench.ts',
    word: /\b(?:assemble|toBeSigned)\(/,
    within: /^src\/(?!x509\/)/,
    allowed: /^src\/ca\/workbench\.ts$/,
    reason: 'No certificate is made outside ca/workbench.ts: whoever assembles one elsewhere skips the checks.',
  },
  {
    name: 'keys are proven by their requests',
    word: /\bprovenElsewhere\(/,
    within: /^src\/(?!x509\/)/,
    allowed: /^src\/ca\/workbench-threads\.ts$/,
    reason: 'A key is proven by the signature on its request; only what goes from thread to thread is taken at its word.',
  },
  {
    name: 'signers are used in three places',
    word: /\.sign\(/,
    within: /^src\/(?:ca|spiffe|x509|server)\//,
    // The fourth, key-manager.ts, has a new key sign a challenge, to see that its driver told the truth.
    allowed: /^src\/(?:ca\/issuance|ca\/key-manager|spiffe\/jws|x509\/certificate-request|x509\/revocation-list)\.ts$/,
    reason: 'A Signer of the CA signs certificates, tokens, revocation lists and our own requests, each in one file.',
  },
  {
    name: 'tokens are made by their authorities',
    word: /\bmake(?:Jwt|Wit)Svid\(/,
    within: /^src\/(?!spiffe\/)/,
    allowed: /^src\/ca\/(?:jwt|wit)-authority\.ts$/,
    reason: 'A token is signed by a recorded signer, which writes its intent before the key is used.',
  },
  {
    name: 'the process is touched in main/process.ts',
    word: /\bprocess\.(?:exit|on|once|kill|exitCode)\b/,
    within: /^src\//,
    // runtime.ts ends an interpreter that is too old to read the rest.
    allowed: /^src\/main\/(?:process|runtime)\.ts$/,
    reason: 'Signals and the exit code have one owner; nobody else ends the program.',
  },
  {
    name: 'secrets are compared by their hashes',
    word: /(?:secret|hmac|password|passphrase|digest)\w*\s*[!=]==(?!\s*(?:undefined\b|null\b|''|0\b))|[!=]==\s*\w*(?:secret|hmac|password|passphrase)/i,
    within: /^src\//,
    allowed: /^$/,
    reason:
      'How long a comparison takes tells how much of a secret was right (R-41): look it up by its hash, or use timingSafeEqual on two hashes.',
  },
  {
    name: 'danger says its name',
    word: /rejectUnauthorized: false/,
    within: /^src\//,
    // These verify the peer by SPIFFE rules, which know no host names, before a byte is used.
    allowed: /^src\/(?:rpc\/[^/]+|workload-client\/tls)\.ts$/,
    reason: 'TLS without verification is an open door.',
  },
] as const

const folder = process.argv[2] ?? join(import.meta.dirname, '..')
process.chdir(folder)
const files = readdirSync('src', { recursive: true, encoding: 'utf8' })
  .map((path) => `src/${path.replaceAll('\\', '/')}`)
  .filter((path) => path.endsWith('.ts') && !path.startsWith('src/rpc/gen/'))

const broken = [...(await brokenArrows()), ...brokenWords()]
for (const line of broken) process.stdout.write(`${line}\n`)
process.stdout.write(`${files.length} files, ${broken.length} broken boundaries\n`)
if (broken.length > 0) process.exitCode = 1

async function brokenArrows(): Promise<string[]> {
  teachSwcUsing()
  const config = await extractConfig(join(folder, '.dependency-cruiser.cjs'))
  const { output } = await cruise(['src'], { ...config.options, ruleSet: config, validate: true }, config.options?.enhancedResolveOptions)
  const { modules, summary } = output as ICruiseResult
  // A cruiser that cannot parse TypeScript sees no modules and finds nothing wrong with them.
  const seen = new Set(
    modules.filter((module) => module.followable !== false && module.source.startsWith('src/')).map((module) => module.source),
  )
  const unseen = files.filter((path) => !seen.has(path))
  return [
    ...(seen.size === 0 || unseen.length > 0
      ? [`${unseen.length} of ${files.length} files were not looked at: ${unseen.slice(0, 5).join(', ')}`]
      : []),
    ...summary.violations.map(({ from, to, rule, cycle }) => {
      const path = cycle ? cycle.map((step) => step.name).join(' → ') : to
      const reason = config.forbidden?.find(({ name }) => name === rule.name)?.comment ?? ''
      return `${from} → ${path}\n    ${rule.name}: ${reason}`
    }),
  ]
}

function brokenWords(): string[] {
  return files.flatMap((path) => {
    const lines = readFileSync(path, 'utf8').split('\n')
    return wordRules
      .filter((rule) => rule.within.test(path) && !rule.allowed.test(path))
      .flatMap((rule) =>
        lines.flatMap((line, index) =>
          rule.word.test(withoutComment(line)) ? [`${path}:${index + 1}: ${line.trim()}\n    ${rule.name}: ${rule.reason}`] : [],
        ),
      )
  })
}

function withoutComment(line: string): string {
  return /^\s*(?:\*|\/\*|\/\/)/.test(line) ? '' : line.replace(/ \/\/ .*$/, '')
}
