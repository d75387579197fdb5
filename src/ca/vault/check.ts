/** The preflight of a vault (V-2): is it there, does it know us, may we do what we will have to do, and for how long will it sign. */
import { z } from 'zod'
import { formatInstant, type Clock } from '../../kernel/clock.ts'
import { formatDuration, seconds, type Duration } from '../../kernel/duration.ts'
import { Failure, tellChain } from '../../kernel/failure.ts'
import { parseCertificatesPem } from '../../x509/pem.ts'
import { healthOf } from './health.ts'
import { formatRight, missingRights, type Right } from './rights.ts'
import type { VaultSession } from './session.ts'

/** One thing that was looked at. */
export interface Finding {
  readonly what: 'health' | 'login' | 'right' | 'issuer' | 'lifetime'
  readonly ok: boolean
  readonly text: string
  /** What would mend it: for a right, the lines of the policy. */
  readonly remedy?: string
}

export interface CheckTarget {
  readonly rights: readonly Right[]
  /** Of an upstream: the issuer that is to sign, and how long our CA is to live. */
  readonly pki?: { readonly mount: string; readonly issuer?: string | undefined; readonly lifetime: Duration }
}

/** Everything that can be told; what cannot be asked because something before it failed is left out. */
export async function checkVault(session: VaultSession, target: CheckTarget, clock: Clock, signal: AbortSignal): Promise<Finding[]> {
  const findings: Finding[] = []
  const look = async (what: Finding['what'], deed: () => Promise<readonly Finding[]>): Promise<boolean> => {
    try {
      const found = await deed()
      findings.push(...found)
      return found.every(({ ok }) => ok)
    } catch (error) {
      signal.throwIfAborted()
      findings.push({ what: Failure.from(error).reason.startsWith('vault.') ? what : 'login', ok: false, text: tellChain(error) })
      return false
    }
  }
  if (!(await look('health', () => health(session, signal)))) return findings
  if (!(await look('login', () => login(session, signal)))) return findings
  await look('right', () => rights(session, target.rights, signal))
  const { pki } = target
  if (pki) {
    await look('issuer', () => issuer(session, pki, clock, signal))
    await look('lifetime', () => limit(session, pki, signal))
  }
  return findings
}

async function health(session: VaultSession, signal: AbortSignal): Promise<Finding[]> {
  const { state, serves } = await healthOf(session, signal)
  return [{ what: 'health', ok: serves, text: `the vault at \`${session.settings.address}\` is ${state}` }]
}

async function login(session: VaultSession, signal: AbortSignal): Promise<Finding[]> {
  const until = await session.ready(signal)
  const ends = until === Infinity ? 'has no end that we know' : `ends at ${formatInstant(until)} unless it is renewed`
  return [{ what: 'login', ok: true, text: `logged in by \`${session.settings.auth.method}\`; the token ${ends}` }]
}

async function rights(session: VaultSession, wanted: readonly Right[], signal: AbortSignal): Promise<Finding[]> {
  const lacking = await missingRights(session, wanted, signal)
  return wanted.map((right) => {
    const lack = lacking.find(({ path }) => path === right.path)
    if (!lack) return { what: 'right', ok: true, text: `${right.path}: ${right.capabilities.join(', ')}` }
    return {
      what: 'right',
      ok: false,
      text: `${right.path}: lacks ${lack.capabilities.join(', ')}: ${right.purpose}`,
      remedy: formatRight(right),
    }
  })
}

async function issuer(session: VaultSession, pki: NonNullable<CheckTarget['pki']>, clock: Clock, signal: AbortSignal): Promise<Finding[]> {
  const path = [...pki.mount.split('/'), 'issuer', pki.issuer ?? 'default', 'json']
  const { body } = await session.call({ method: 'GET', path }, signal)
  const [certificate] = parseCertificatesPem(issuerAnswer.parse(body).data.certificate)
  const { subject, notAfter, basicConstraints } = certificate!
  const left = notAfter - clock.now()
  const name = `\`${subject.text.slice(0, 120).replace(/[^ -~]|`/g, '?')}\``
  const text = `${name} signs for us, until ${formatInstant(notAfter)}`
  if (basicConstraints?.pathLength === 0)
    return [
      {
        what: 'issuer',
        ok: false,
        text: `${name} has the path length 0 and cannot sign a CA`,
        remedy: 'make an issuer without a path length, or with 1 and more',
      },
    ]
  if (left >= pki.lifetime) return [{ what: 'issuer', ok: true, text }]
  const remedy = 'renew the issuer, or set a shorter `ca.lifetime`'
  return [{ what: 'issuer', ok: false, text: `${text}: less than the ${formatDuration(pki.lifetime)} of \`ca.lifetime\``, remedy }]
}

/** The mount caps what it signs, and tells it to everybody who may use it. */
async function limit(session: VaultSession, { mount, lifetime }: NonNullable<CheckTarget['pki']>, signal: AbortSignal): Promise<Finding[]> {
  const path = ['sys', 'internal', 'ui', 'mounts', ...mount.split('/')]
  const { body } = await session.call({ method: 'GET', path }, signal)
  const longest = seconds(mountAnswer.parse(body).data.config.max_lease_ttl)
  const text = `the mount \`${mount}\` signs for ${formatDuration(longest)} at most`
  if (longest >= lifetime) return [{ what: 'lifetime', ok: true, text }]
  const wanted = formatDuration(lifetime)
  return [
    {
      what: 'lifetime',
      ok: false,
      text: `${text}: less than the ${wanted} of \`ca.lifetime\``,
      remedy: `vault secrets tune -max-lease-ttl=${Math.ceil(lifetime / seconds(1))}s ${mount}`,
    },
  ]
}

const issuerAnswer = z.object({ data: z.object({ certificate: z.string().min(1) }) })
const mountAnswer = z.object({ data: z.object({ config: z.object({ max_lease_ttl: z.number().min(0) }) }) })
