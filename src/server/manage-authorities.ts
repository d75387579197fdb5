import type { AuthorityKind, AuthorityState, AuthorityStatus } from '../ca/authorities.ts'
import { Failure } from '../kernel/failure.ts'
import { callerName, type Caller } from './caller.ts'
import type { Server } from './server.ts'

type Needs = Pick<Server, 'ca'>

/** @throws Failure `ca.wit-off` */
export const authorityState = ({ ca }: Needs, kind: AuthorityKind): AuthorityState => ca.authorities.state(kind)

/** Makes a new authority and announces it: it signs when it is activated, or when the active one is near its end. @throws Failure as `Authorities.prepare` */
export function prepareAuthority({ ca }: Needs, kind: AuthorityKind, caller: Caller, signal: AbortSignal): Promise<AuthorityStatus> {
  return ca.authorities.prepare(kind, asked(caller), signal)
}

/** The prepared authority signs from now on. @throws Failure `authority.no-id`, and as `Authorities.activate` */
export async function activateAuthority({ ca }: Needs, kind: AuthorityKind, id: string, caller: Caller): Promise<AuthorityStatus> {
  return ca.authorities.activate(kind, named(kind, id), asked(caller))
}

/** Makes everybody replace what an old authority signed. @throws Failure `authority.no-id`, and as `Authorities.taint` */
export async function taintAuthority({ ca }: Needs, kind: AuthorityKind, id: string, caller: Caller): Promise<AuthorityStatus> {
  return ca.authorities.taint(kind, named(kind, id), asked(caller))
}

/** Ends the trust in a tainted authority. @throws Failure `authority.no-id`, and as `Authorities.revoke` */
export async function revokeAuthority(
  { ca }: Needs,
  kind: AuthorityKind,
  id: string,
  caller: Caller,
  signal: AbortSignal,
): Promise<AuthorityStatus> {
  return ca.authorities.revoke(kind, named(kind, id), asked(caller), signal)
}

/** Makes everybody replace what is under a root above us. @throws Failure `authority.no-id`, and as `Authorities.taintRoot` */
export async function taintUpstreamAuthority({ ca }: Needs, subjectKeyId: string, caller: Caller): Promise<string> {
  const root = named('x509', subjectKeyId)
  await ca.authorities.taintRoot(root, asked(caller))
  return root
}

/** Ends the trust in a tainted root above us. @throws Failure `authority.no-id`, and as `Authorities.revokeRoot` */
export async function revokeUpstreamAuthority({ ca }: Needs, subjectKeyId: string, caller: Caller): Promise<string> {
  const root = named('x509', subjectKeyId)
  await ca.authorities.revokeRoot(root, asked(caller))
  return root
}

const asked = (caller: Caller) => ({ caller: callerName(caller) })

/** X.509 authorities are named in hex, which some write in capitals. */
function named(kind: AuthorityKind, id: string): string {
  if (id !== '') return kind === 'x509' ? id.toLowerCase() : id
  throw new Failure('invalid_argument', 'authority.no-id', { public: 'the authority is not named: `vidimus authority show` lists them' })
}
