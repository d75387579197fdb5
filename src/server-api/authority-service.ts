import type { AuthorityKind } from '../ca/authorities.ts'
import { LocalAuthority } from '../rpc/gen/spire/api/server/localauthority/v1/localauthority_pb.ts'
import { mount, type Call, type Mounted } from '../rpc/handler.ts'
import type { Caller } from '../server/caller.ts'
import {
  activateAuthority,
  authorityState,
  prepareAuthority,
  revokeAuthority,
  revokeUpstreamAuthority,
  taintAuthority,
  taintUpstreamAuthority,
} from '../server/manage-authorities.ts'
import type { Server } from '../server/server.ts'
import { toAuthority, toAuthorityState } from './messages.ts'

interface Named {
  readonly authorityId: string
}

/** `spire.api.server.localauthority.v1.LocalAuthority`: SPIRE's five WIT methods, which it does not serve itself, are served here. */
export function authorityService(server: Server): Mounted<Caller> {
  const [x509, jwt, wit] = [methodsOf(server, 'x509'), methodsOf(server, 'jwt'), methodsOf(server, 'wit')]
  return mount<typeof LocalAuthority, Caller>(LocalAuthority, {
    getX509AuthorityState: x509.state,
    prepareX509Authority: x509.prepare,
    activateX509Authority: x509.activate,
    taintX509Authority: x509.taint,
    revokeX509Authority: x509.revoke,
    taintX509UpstreamAuthority: async ({ subjectKeyId }, { peer }) => ({
      upstreamAuthoritySubjectKeyId: await taintUpstreamAuthority(server, subjectKeyId, peer),
    }),
    revokeX509UpstreamAuthority: async ({ subjectKeyId }, { peer }) => ({
      upstreamAuthoritySubjectKeyId: await revokeUpstreamAuthority(server, subjectKeyId, peer),
    }),
    getJWTAuthorityState: jwt.state,
    prepareJWTAuthority: jwt.prepare,
    activateJWTAuthority: jwt.activate,
    taintJWTAuthority: jwt.taint,
    revokeJWTAuthority: jwt.revoke,
    getWITAuthorityState: wit.state,
    prepareWITAuthority: wit.prepare,
    activateWITAuthority: wit.activate,
    taintWITAuthority: wit.taint,
    revokeWITAuthority: wit.revoke,
  })
}

/** The five methods that every kind has. */
function methodsOf(server: Server, kind: AuthorityKind) {
  return {
    state: async () => toAuthorityState(authorityState(server, kind)),
    prepare: async (_: object, { peer, signal }: Call<Caller>) => ({
      preparedAuthority: toAuthority(await prepareAuthority(server, kind, peer, signal)),
    }),
    activate: async ({ authorityId }: Named, { peer }: Call<Caller>) => ({
      activatedAuthority: toAuthority(await activateAuthority(server, kind, authorityId, peer)),
    }),
    taint: async ({ authorityId }: Named, { peer }: Call<Caller>) => ({
      taintedAuthority: toAuthority(await taintAuthority(server, kind, authorityId, peer)),
    }),
    revoke: async ({ authorityId }: Named, { peer, signal }: Call<Caller>) => ({
      revokedAuthority: toAuthority(await revokeAuthority(server, kind, authorityId, peer, signal)),
    }),
  }
}
