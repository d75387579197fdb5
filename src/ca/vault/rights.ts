/** What our policy at a vault must allow, and the text that allows it: nothing more (V-2, V-21). */
import { z } from 'zod'
import { failedWith } from '../../kernel/failure.ts'
import type { VaultSession } from './session.ts'

export interface Right {
  /** As a policy says it; `*` at the end stands for any rest. */
  readonly path: string
  readonly capabilities: readonly Capability[]
  /** What it is for, in a few words. */
  readonly purpose: string
}

export type Capability = 'create' | 'read' | 'update' | 'delete'

/** What every token of ours needs: to be kept alive, looked at and given back. */
export const sessionRights: readonly Right[] = [
  { path: 'auth/token/renew-self', capabilities: ['update'], purpose: 'the token is renewed before it ends' },
  { path: 'auth/token/lookup-self', capabilities: ['read'], purpose: 'the token can be told from a revoked one' },
  { path: 'auth/token/revoke-self', capabilities: ['update'], purpose: 'the token is given back when the server stops' },
  { path: 'sys/capabilities-self', capabilities: ['update'], purpose: 'these rights are checked every hour' },
]

/** For a PKI mount that signs our CA. */
export function pkiRights({ mount, issuer }: { readonly mount: string; readonly issuer?: string | undefined }): readonly Right[] {
  return [
    {
      path: issuer === undefined ? `${mount}/root/sign-intermediate` : `${mount}/issuer/${issuer}/sign-intermediate`,
      capabilities: ['update'],
      purpose: 'our CA is signed, at the start and at every rotation',
    },
    {
      path: `${mount}/issuer/${issuer ?? 'default'}/json`,
      capabilities: ['read'],
      purpose: 'a new root is announced before it is used',
    },
  ]
}

/** For a Transit mount that keeps our keys. */
export function transitRights({ mount, prefix }: { readonly mount: string; readonly prefix: string }): readonly Right[] {
  return [
    { path: `${mount}/keys/${prefix}-*`, capabilities: ['create', 'read', 'update', 'delete'], purpose: 'keys are made, read and removed' },
    { path: `${mount}/sign/${prefix}-*`, capabilities: ['update'], purpose: 'keys sign' },
  ]
}

/** The policy that gives these rights, in HCL. */
export function formatPolicy(rights: readonly Right[]): string {
  return rights.map((right) => `# ${right.purpose}\n${formatRight(right)}\n`).join('\n')
}

export function formatRight({ path, capabilities }: Right): string {
  return `path "${path}" { capabilities = [${capabilities.map((one) => `"${one}"`).join(', ')}] }`
}

/** Those of the rights that our token does not have, each with the capabilities that it lacks. @throws Failure `vault.*` */
export async function missingRights(session: VaultSession, rights: readonly Right[], signal: AbortSignal): Promise<readonly Right[]> {
  try {
    const body = { paths: rights.map(({ path }) => asked(path)) }
    const answer = await session.call({ method: 'POST', path: ['sys', 'capabilities-self'], body }, signal)
    const held = capabilitiesAnswer.parse(answer.body).data
    return rights.flatMap((right) => {
      const has = new Set(held[asked(right.path)] ?? [])
      const lacks = has.has('root') ? [] : right.capabilities.filter((one) => !has.has(one))
      return lacks.length === 0 ? [] : [{ ...right, capabilities: lacks }]
    })
  } catch (error) {
    // Whoever may not ask what it may do can be told of that alone.
    if (failedWith(error, 'vault.permission-denied')) return rights.filter(({ path }) => path === 'sys/capabilities-self')
    throw error
  }
}

/** The vault is asked for a path, not for a pattern. */
const asked = (path: string): string => path.replace(/\*$/, 'preflight')

const capabilitiesAnswer = z.object({ data: z.record(z.string(), z.array(z.string()).or(z.unknown())) }).transform(({ data }) => ({
  data: Object.fromEntries(Object.entries(data).map(([path, held]) => [path, Array.isArray(held) ? held.map(String) : []])),
}))
