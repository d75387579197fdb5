import { z } from 'zod'
import type { Instant } from '../../kernel/clock.ts'
import { secretReference, type SecretReference, type World } from '../../kernel/driver.ts'
import { parseDuration, seconds, type Duration } from '../../kernel/duration.ts'
import { Failure } from '../../kernel/failure.ts'
import { fingerprint, isSelfIssued, signedBy, type Certificate } from '../../x509/certificate.ts'
import { buildChain } from '../../x509/chain.ts'
import { formatPem, parseCertificatesPem } from '../../x509/pem.ts'
import { upstreamAuthority, type MintedAuthority, type MintRequest } from '../upstream-authority.ts'
import { connectVault, type VaultSettings } from './vault-wire.ts'

/** Signs our CA with a PKI mount of HashiCorp Vault or OpenBao. Wire: Vault's HTTP API, `sign-intermediate`. */
export const vault = upstreamAuthority({
  kind: 'vault',
  config: z.strictObject({
    address: z.string().transform(readAddress),
    namespace: z.string().regex(pathPattern(), 'expected segments of letters, digits, `.`, `_` and `-`').optional(),
    /** Path of the PKI mount. */
    mount: z.string().regex(pathPattern(), 'expected segments of letters, digits, `.`, `_` and `-`').default('pki'),
    /** Name or id of the issuer within the mount; the mount's default issuer, which can change under us, when left out (V-3). */
    issuer: z.string().regex(segmentPattern(), 'expected letters, digits, `.`, `_` and `-`').optional(),
    auth: z.discriminatedUnion('method', [z.strictObject({ method: z.literal('token'), token: secretReference })]),
    /** PEM file with the CAs that may vouch for the server; those of the system when left out. Read anew for each call (V-12). */
    caFile: z.string().min(1).optional(),
    /** Believes any server. For a laboratory. */
    dangerouslySkipTlsVerification: z.boolean().default(false),
    /** For one call (V-13). */
    timeout: z.string().default('10s').transform(readTimeout),
  }),
  example: {
    address: 'https://vault.example.test:8200',
    mount: 'pki',
    issuer: 'vidimus-root',
    auth: { method: 'token', token: { env: 'VIDIMUS_VAULT_TOKEN' } },
  },

  async open(config, world) {
    if (config.dangerouslySkipTlsVerification)
      world.log.error('the certificate of the vault is not verified: anybody between us and it can become our root', {
        address: config.address,
      })
    const path = [...config.mount.split('/'), ...(config.issuer === undefined ? ['root'] : ['issuer', config.issuer]), 'sign-intermediate']
    return {
      mint: (request, signal) => signIntermediate({ ...config, path }, request, world, signal),
      // A token is read for each call and kept nowhere, so there is nothing to give back.
      async [Symbol.asyncDispose]() {},
    }
  },
})

interface Target extends VaultSettings {
  readonly path: readonly string[]
  readonly auth: { readonly token: SecretReference }
}

async function signIntermediate(target: Target, request: MintRequest, world: World, signal: AbortSignal): Promise<MintedAuthority> {
  const token = await world.secrets.read(target.auth.token)
  const client = await connectVault(target, token, world)
  const answer = await client.write(
    target.path,
    {
      csr: formatPem('CERTIFICATE REQUEST', await request.csr()),
      // Our request holds the one URI name and the key, and nothing that would have to be taken out again.
      use_csr_values: true,
      common_name: '',
      exclude_cn_from_sans: true,
      ttl: `${Math.floor(request.lifetime / seconds(1))}s`,
      max_path_length: request.pathLength,
      format: 'pem',
    },
    signal,
  )
  return readAnswer(answer, world.clock.now())
}

function readAnswer(answer: unknown, at: Instant): MintedAuthority {
  const read = answerSchema.safeParse(answer)
  if (!read.success) throw refused('malformed-answer', 'the vault answered with something else than a certificate', read.error)
  const { certificate, issuing_ca, ca_chain } = read.data.data
  try {
    const [own] = parseCertificatesPem(certificate)
    const others = [...(ca_chain ?? []), ...(issuing_ca === undefined || issuing_ca === '' ? [] : [issuing_ca])].flatMap(
      parseCertificatesPem,
    )
    return { ...ordered(own!, others, at), warnings: (read.data.warnings ?? []).slice(0, maxWarnings).map(tame) }
  } catch (cause) {
    if (cause instanceof Failure && cause.reason.startsWith('upstream.')) throw cause
    throw refused('malformed-answer', 'the vault answered with certificates that cannot be used', cause)
  }
}

/** The parts come in any order, some twice, some missing (V-5): what counts is who signed whom. Strangers are dropped. */
function ordered(own: Certificate, others: readonly Certificate[], at: Instant): Pick<MintedAuthority, 'chain' | 'roots'> {
  const unique = [...new Map(others.map((one) => [fingerprint(one), one])).values()].filter((one) => fingerprint(one) !== fingerprint(own))
  const roots = unique.filter((one) => isSelfIssued(one) && signedBy(one, one))
  if (roots.length === 0)
    throw refused('no-root', 'the vault answered without a root: give its issuer the whole chain up to a self-signed certificate')
  try {
    const path = buildChain({ leaf: own, intermediates: unique.filter((one) => !roots.includes(one)), roots, at })
    return { chain: path.slice(0, -1), roots: path.slice(-1) }
  } catch (cause) {
    throw refused('no-path', 'the certificate that the vault signed does not lead to a root that it told us', cause)
  }
}

const answerSchema = z.object({
  data: z.object({ certificate: z.string().min(1), issuing_ca: z.string().optional(), ca_chain: z.array(z.string()).max(32).nullish() }),
  warnings: z.array(z.string()).nullish(),
})

/** HTTPS; without it only on this machine, for the token travels with each call. */
function readAddress(text: string, context: z.RefinementCtx): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const loopback = url !== undefined && loopbackHosts.has(url.hostname)
  if (
    url &&
    (url.protocol === 'https:' || (url.protocol === 'http:' && loopback)) &&
    `${url.origin}${url.pathname}` === `${text.replace(/\/$/, '')}/`
  )
    return url.origin
  context.addIssue({
    code: 'custom',
    message: 'expected an address like `https://vault.example.org:8200`, without a path; `http` only on this machine',
  })
  return z.NEVER
}

function readTimeout(text: string, context: z.RefinementCtx): Duration {
  try {
    const timeout = parseDuration(text)
    if (timeout >= seconds(1) && timeout <= seconds(60)) return timeout
    context.addIssue({ code: 'custom', message: `\`${text}\` is out of range: expected 1s to 60s` })
  } catch (error) {
    context.addIssue({ code: 'custom', message: Failure.from(error).message })
  }
  return z.NEVER
}

/** V-1: a segment is never empty and never begins with a dot. */
function segmentPattern(): RegExp {
  return /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/
}

function pathPattern(): RegExp {
  return /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}(?:\/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}){0,15}$/
}

function refused(what: string, problem: string, cause?: unknown): Failure {
  return new Failure('failed_precondition', `upstream.${what}`, { public: problem, ...(cause === undefined ? {} : { cause }) })
}

/** What somebody else wrote, fit for one line of our log. */
const tame = (text: string): string => text.replace(/[\p{Cc}]+/gu, ' ').slice(0, maxWarningLength)
const loopbackHosts = new Set(['127.0.0.1', 'localhost', '[::1]'])
const maxWarnings = 8
const maxWarningLength = 300
