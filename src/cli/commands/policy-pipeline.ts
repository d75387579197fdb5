/** Policies for other programs: decisions by the line, the filters of a proxy, and paths as a proxy sees them. */
import { z } from 'zod'
import { Failure } from '../../kernel/failure.ts'
import type { Instant } from '../../kernel/clock.ts'
import { compileFor, type CompiledPolicies, type WorkloadFacts } from '../../policy/compile.ts'
import { decide } from '../../policy/evaluate.ts'
import { normalizePath, pathNormalizations } from '../../policy/normalize.ts'
import type { PolicySet } from '../../policy/policy-set.ts'
import { parseSpiffeId, trustDomainOf } from '../../spiffe/id.ts'
import { parseSelector, selector } from '../../spiffe/selector.ts'
import { command } from '../command.ts'
import { asLanguageOptions, languageFlags, parsed } from '../flags.ts'
import { parseRequestLine, requestLine, toVerdictLine, verdictLine, type VerdictLine } from '../policy-lines.ts'
import { policyFiles, valid } from './policy.ts'

const policies = z
  .array(z.string().min(1))
  .min(1)
  .max(1000)
  .optional()
  .describe('policy files, or directories of them')
  .meta({ value: 'path' })

export const policyEval = command({
  name: 'policy eval',
  summary: 'decide requests, one JSON object a line in, one verdict a line out',
  flags: z.strictObject({
    policies,
    requests: z.string().optional().describe('a file of requests; `-` for standard input').meta({ value: 'path' }),
    schema: z.boolean().default(false).describe('print the JSON Schema of requests and verdicts instead'),
    ...languageFlags,
  }),
  examples: [
    'vidimus policy eval --policies policies/ --requests requests.jsonl',
    `echo '{"workload":{"identities":["spiffe://example.org/ns/shop/sa/orders"]},"method":"GET","host":"orders","path":"/"}' | vidimus policy eval --policies policies/ --requests -`,
    'vidimus policy eval --schema',
  ],
  async run(flags, { disk, clock, terminal }) {
    if (flags.schema) {
      const value = { request: z.toJSONSchema(requestLine, { io: 'input' }), verdict: z.toJSONSchema(verdictLine) }
      return { value, text: JSON.stringify(value, undefined, 2) }
    }
    if (!flags.policies || flags.requests === undefined) throw wrong('`--policies` and `--requests` are needed, or `--schema`')
    const set = valid(await policyFiles(disk, flags.policies), asLanguageOptions(flags))
    const compiled = new Compiled(set)
    let number = 0
    let bad = 0
    for await (const line of disk.lines(flags.requests)) {
      number++
      if (line.trim() === '') continue
      const verdict = judged(compiled, number, line, clock.now())
      if ('error' in verdict) bad++
      terminal.out(`${JSON.stringify(verdict)}\n`)
    }
    if (bad > 0) terminal.fail()
    return undefined
  },
})

function judged(compiled: Compiled, number: number, line: string, now: Instant): VerdictLine {
  try {
    const question = parseRequestLine(line)
    const rules = compiled.for(question.workload, question.at ?? now)
    const candidate = rules.candidate && decide(rules.candidate, question.request)
    return toVerdictLine(number, question, decide(rules, question.request), candidate)
  } catch (error) {
    return { line: number, error: Failure.from(error).message }
  }
}

/** Rules by workload: a file of requests is about few of them. */
class Compiled {
  readonly #set: PolicySet
  readonly #known = new Map<string, { readonly rules: CompiledPolicies; readonly at: Instant }>()

  constructor(set: PolicySet) {
    this.#set = set
  }

  for(workload: WorkloadFacts, at: Instant): CompiledPolicies {
    const key = JSON.stringify(workload)
    const known = this.#known.get(key)
    if (known && at >= known.at && (known.rules.validUntil === undefined || at < known.rules.validUntil)) return known.rules
    const rules = compileFor(this.#set, workload, { at })
    if (this.#known.size >= maxWorkloads) this.#known.clear()
    this.#known.set(key, { rules, at })
    return rules
  }
}

export const policyCompile = command({
  name: 'policy compile',
  summary: 'print the filters that make a proxy enforce the policies of a workload',
  flags: z.strictObject({
    policies,
    workload: z
      .array(parsed(parseSpiffeId))
      .min(1)
      .max(100)
      .describe('the SPIFFE ID that the proxy stands beside')
      .meta({ value: 'spiffe-id' }),
    namespace: z.string().optional().describe('its attested namespace; by default the one in its SPIFFE ID').meta({ value: 'name' }),
    label: z.array(z.string()).default([]).describe('an attested label, as often as needed').meta({ value: 'key=value' }),
    selector: z.array(z.string()).default([]).describe('what else was attested, as often as needed').meta({ value: 'type:value' }),
    provider: z
      .array(z.string())
      .default([])
      .describe('the cluster of a provider that CUSTOM policies name')
      .meta({ value: 'name=cluster' }),
    federated: z.string().optional().describe('other trust domains whose certificates the proxy accepts').meta({ value: 'name,name' }),
    ...languageFlags,
  }),
  forms: ['yaml'],
  examples: ['vidimus policy compile --policies policies/ --workload spiffe://example.org/ns/shop/sa/orders --compat istio --output yaml'],
  async run(flags, { disk, clock, proxies }) {
    if (!flags.policies) throw wrong('`--policies` is needed')
    const set = valid(await policyFiles(disk, flags.policies), asLanguageOptions(flags))
    const facts = {
      spiffeIds: flags.workload,
      selectors: [
        ...(flags.namespace === undefined ? [] : [selector('k8s', `ns:${flags.namespace}`)]),
        ...flags.label.map((label) => selector('k8s', `pod-label:${pairOf('--label', label).join(':')}`)),
        ...flags.selector.map(parseSelector),
      ],
    }
    const own = trustDomainOf(flags.workload[0]!)
    const federated = (flags.federated ?? '').split(',').filter((name) => name !== '')
    const chain = await proxies.filters(compileFor(set, facts, { at: clock.now() }), {
      trustDomains: [...new Set([own, ...set.trustDomainAliases, ...federated])],
      providers: Object.fromEntries(flags.provider.map((one) => pairOf('--provider', one))),
    })
    const { stringify } = await import('yaml')
    const { http, network, notes } = chain
    const yaml = stringify({ http, network }, { lineWidth: 0, aliasDuplicateObjects: false })
    return { value: chain, text: `${notes.map((note) => `# ${note}\n`).join('')}${yaml}` }
  },
})

export const policyNormalize = command({
  name: 'policy normalize',
  summary: 'print paths from standard input as policies see them; `400` is a path that a proxy refuses',
  flags: z.strictObject({
    mode: z.enum(pathNormalizations).default('decode-and-merge-slashes').describe("Istio's `pathNormalization`"),
  }),
  examples: ["echo '/a/../b' | vidimus policy normalize --mode base"],
  async run({ mode }, { disk, terminal }) {
    for await (const line of disk.lines('-')) terminal.out(`${normalizePath(line, mode) ?? '400'}\n`)
  },
})

function pairOf(flag: string, text: string): [string, string] {
  const cut = text.indexOf('=')
  if (cut < 1) throw wrong(`\`${flag}\`: expected \`name=value\`, found \`${text.slice(0, 80)}\``)
  return [text.slice(0, cut), text.slice(cut + 1)]
}

const wrong = (what: string): Failure => new Failure('invalid_argument', 'usage.wrong', { public: what })

const maxWorkloads = 1000
