/** Which services are mounted where. */
import type { Watched } from '../kernel/watched.ts'
import { health } from '../rpc/health.ts'
import type { Mounted } from '../rpc/handler.ts'
import type { Caller, Peer } from '../server/caller.ts'
import type { ServerHealth } from '../server/health.ts'
import type { Server } from '../server/server.ts'
import { agentService } from './agent-service.ts'
import { amendedEntries } from './amended-entries-service.ts'
import { authorityService } from './authority-service.ts'
import { bundleService } from './bundle-service.ts'
import { entryService } from './entry-service.ts'
import { frozenNodes } from './frozen-nodes-service.ts'
import { guard } from './guard.ts'
import { policyAdministration, policyDistribution, policyHistory } from './policy-service.ts'
import { policyObservation, policyShadow } from './policy-shadow-service.ts'
import { svidService } from './svid-service.ts'

/** The server API as agents and administrators reach it over TLS. Every method is authorised before it runs. */
export function serverApi(server: Server): readonly Mounted<Peer>[] {
  const services = [
    agentService,
    frozenNodes,
    authorityService,
    bundleService,
    entryService,
    amendedEntries,
    svidService,
    policyAdministration,
    policyHistory,
    policyShadow,
    policyDistribution,
    policyObservation,
  ]
  return services.map((service) => guard(server, service(server)))
}

/** The same on the operators' socket, with the health protocol beside it. */
export function privateServerApi(server: Server, state: Watched<ServerHealth>): readonly Mounted<Peer>[] {
  return [...serverApi(server), guard(server, health<Caller>(state))]
}
