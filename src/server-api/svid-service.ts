import { seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { SVID } from '../rpc/gen/spire/api/server/svid/v1/svid_pb.ts'
import { mount, type Mounted } from '../rpc/handler.ts'
import type { Caller } from '../server/caller.ts'
import { issueJwtSvid } from '../server/issue-jwt-svid.ts'
import { issueWitSvids, mintWitSvid } from '../server/issue-wit-svid.ts'
import { issueX509Svids } from '../server/issue-x509-svid.ts'
import type { Server } from '../server/server.ts'
import { agentOf } from './agent-caller.ts'
import { failedItem } from './batch.ts'
import { fromSpiffeId, fromWitKey, okStatus, toJwtSvid, toWitSvid, toX509Svid } from './messages.ts'

/** `spire.api.server.svid.v1.SVID` */
export const svidService = (server: Server): Mounted<Caller> =>
  mount<typeof SVID, Caller>(SVID, {
    async batchNewX509SVID({ params }, { peer, signal }) {
      const outcomes = await issueX509Svids(server, agentOf(peer), params, signal)
      return {
        results: outcomes.map((outcome) =>
          outcome instanceof Failure
            ? { status: failedItem(server.log, outcome) }
            : { status: okStatus, svid: toX509Svid(outcome.svid, outcome.entry.hint) },
        ),
      }
    },

    async newJWTSVID({ entryId, audience }, { peer, signal }) {
      const { entry, svid } = await issueJwtSvid(server, agentOf(peer), entryId, audience, signal)
      return { svid: toJwtSvid(svid, entry.hint) }
    },

    async mintWITSVID({ id, ttl, ...key }, { peer, signal }) {
      const wish = { spiffeId: fromSpiffeId('id', id), lifetime: seconds(ttl), ...fromWitKey(key) }
      return { svid: toWitSvid(await mintWitSvid(server, wish, peer, signal)) }
    },

    async batchNewWITSVID({ params }, { peer, signal }) {
      const wishes = params.map(({ entryId, ...key }) => ({ entryId, ...fromWitKey(key) }))
      const outcomes = await issueWitSvids(server, agentOf(peer), wishes, signal)
      return {
        results: outcomes.map((outcome) =>
          outcome instanceof Failure
            ? { status: failedItem(server.log, outcome) }
            : { status: okStatus, svid: toWitSvid(outcome.svid, outcome.entry.hint) },
        ),
      }
    },
  })
