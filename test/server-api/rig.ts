/** The server API on channels in memory: messages travel as bytes, failures as statuses. */
import { silentLog } from '../../src/kernel/log.ts'
import { WatchedValue } from '../../src/kernel/watched.ts'
import type { Channel } from '../../src/rpc/client.ts'
import { connectInMemory } from '../../src/rpc/in-memory.ts'
import { detailsFor } from '../../src/server-api/messages.ts'
import { privateServerApi } from '../../src/server-api/services.ts'
import type { Peer } from '../../src/server/caller.ts'
import type { ServerHealth } from '../../src/server/health.ts'
import type { Server } from '../../src/server/server.ts'

export const local: Peer = { kind: 'local', uid: 0, pid: 1, gid: 0 }

/** A channel to every service that a server has, as this peer. */
export function channelAs(peer: Peer, server: Server): Channel {
  const health = new WatchedValue<ServerHealth>({ serving: true, complaints: [] })
  return connectInMemory({ services: privateServerApi(server, health), peer, log: silentLog, detailsOf: detailsFor })
}
