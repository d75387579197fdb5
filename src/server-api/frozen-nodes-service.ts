import { FrozenNodes } from '../rpc/gen/vidimus/api/node/v1/node_pb.ts'
import { mount, type Mounted } from '../rpc/handler.ts'
import type { Caller } from '../server/caller.ts'
import { listNodes, releaseNode } from '../server/manage-nodes.ts'
import type { Server } from '../server/server.ts'
import { fromSpiffeId, toFrozenNode } from './messages.ts'

/** `vidimus.api.node.v1.FrozenNodes`: for operators. */
export const frozenNodes = (server: Server): Mounted<Caller> =>
  mount<typeof FrozenNodes, Caller>(FrozenNodes, {
    async listFrozenNodes({ pageSize, pageToken }, { peer }) {
      const { nodes, nextToken } = await listNodes(server, { frozen: true }, { size: pageSize, token: pageToken }, peer)
      return { nodes: nodes.map(toFrozenNode), nextPageToken: nextToken }
    },

    async releaseNode({ id }, { peer }) {
      await releaseNode(server, fromSpiffeId('id', id), peer)
      return {}
    },
  })
