import { Bundle } from '../rpc/gen/spire/api/server/bundle/v1/bundle_pb.ts'
import { mount, type Mounted } from '../rpc/handler.ts'
import type { Caller } from '../server/caller.ts'
import { currentBundle } from '../server/manage-bundles.ts'
import type { Server } from '../server/server.ts'
import { toBundle } from './messages.ts'

/** `spire.api.server.bundle.v1.Bundle` */
export const bundleService = (server: Server): Mounted<Caller> =>
  mount<typeof Bundle, Caller>(Bundle, {
    getBundle: async ({ outputMask }) => toBundle(currentBundle(server), outputMask),
  })
