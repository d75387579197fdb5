import { administered } from '../audit/event.ts'
import { Failure } from '../kernel/failure.ts'
import { banned, released, type AttestedNode, type NodeFilter } from '../registry/node.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { selector } from '../spiffe/selector.ts'
import { callerName, type Caller } from './caller.ts'
import { maxPage, nextToken, readPage, type PageRequest } from './paging.ts'
import type { Server } from './server.ts'

/** @throws Failure `node.not-found` */
export async function findNode(server: Pick<Server, 'nodes'>, id: SpiffeId): Promise<AttestedNode> {
  const node = await server.nodes.find(id)
  if (!node) throw notFound(id)
  return node
}

/** @throws Failure `paging.bad-size`, `paging.bad-token`, `node.empty-filter` */
export async function listNodes(
  server: Pick<Server, 'nodes'>,
  filter: NodeFilter,
  page: PageRequest,
  caller: Caller,
): Promise<{ readonly nodes: readonly AttestedNode[]; readonly nextToken: string }> {
  checkFilter(filter)
  const scope = { caller: callerName(caller), filter }
  const found = await server.nodes.list(filter, readPage(page, scope))
  return { nodes: found.items, nextToken: nextToken(found, scope) }
}

/** @throws Failure `node.empty-filter` */
export function countNodes(server: Pick<Server, 'nodes'>, filter: NodeFilter): Promise<number> {
  checkFilter(filter)
  return server.nodes.count(filter)
}

/**
 * Forgets a node, and the alias that its join token made: its agent is refused from now on, and may attest again if its evidence can.
 * @throws Failure `node.not-found`
 */
export async function deleteNode(server: Pick<Server, 'nodes' | 'entries' | 'audit'>, id: SpiffeId, caller: Caller): Promise<void> {
  if (!(await server.nodes.remove(id))) throw notFound(id)
  const alias = { parentId: id, selectors: { selectors: [selector('spiffe_id', id)], match: 'exact' as const } }
  for (const { id: entryId } of (await server.entries.list(alias, { limit: maxPage })).items) await server.entries.remove(entryId)
  await server.audit.append(administered({ what: 'node.deleted', subject: id, caller: callerName(caller) }))
}

/**
 * Refuses a node until it is deleted.
 * @throws Failure `node.not-found`
 */
export async function banNode(server: Pick<Server, 'nodes' | 'audit'>, id: SpiffeId, caller: Caller): Promise<void> {
  if (!(await server.nodes.change(id, banned))) throw notFound(id)
  await server.audit.append(administered({ what: 'node.banned', subject: id, caller: callerName(caller) }))
}

/**
 * Lets a frozen node attest again (C-29). No certificate that it or its copy holds is accepted.
 * @throws Failure `node.not-found`, `node.not-frozen`
 */
export async function releaseNode(server: Pick<Server, 'nodes' | 'audit'>, id: SpiffeId, caller: Caller): Promise<void> {
  let wasFrozen = false
  const found = await server.nodes.change(id, (node) => {
    wasFrozen = node.frozen !== undefined
    return wasFrozen ? released(node) : undefined
  })
  if (!found) throw notFound(id)
  if (!wasFrozen) throw new Failure('failed_precondition', 'node.not-frozen', { public: `the agent \`${id}\` is not frozen` })
  await server.audit.append(administered({ what: 'node.released', subject: id, caller: callerName(caller) }))
}

/** Remembers what an agent says about itself; nothing is decided by it. */
export async function noteStatus(
  server: Pick<Server, 'nodes'>,
  agent: AttestedNode,
  { agentVersion }: { readonly agentVersion: string },
): Promise<void> {
  const version = agentVersion.slice(0, maxVersion)
  if (version === agent.agentVersion) return
  await server.nodes.change(agent.id, (node) => ({ ...node, agentVersion: version }))
}

function checkFilter({ selectors }: NodeFilter): void {
  if (selectors?.selectors.length !== 0) return
  throw new Failure('invalid_argument', 'node.empty-filter', { public: 'the filter `by_selector_match` is empty: expected at least one' })
}

function notFound(id: SpiffeId): Failure {
  return new Failure('not_found', 'node.not-found', { public: `there is no agent \`${id}\`` })
}

const maxVersion = 128
