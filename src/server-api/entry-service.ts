import { Failure } from '../kernel/failure.ts'
import type { RegistrationEntry } from '../registry/entry.ts'
import { Entry, type SyncAuthorizedEntriesRequest } from '../rpc/gen/spire/api/server/entry/v1/entry_pb.ts'
import type { EntryMask, Entry as EntryMessage } from '../rpc/gen/spire/api/types/types_pb.ts'
import { mount, type Mounted } from '../rpc/handler.ts'
import type { Caller } from '../server/caller.ts'
import { entitledEntries } from '../server/entitled-entries.ts'
import { countEntries, createEntry, deleteEntry, findEntry, listEntries, updateEntry } from '../server/manage-entries.ts'
import type { Server } from '../server/server.ts'
import { agentOf } from './agent-caller.ts'
import { checkBatch, failedItem, similar } from './batch.ts'
import { changedBy, fromEntry, fromEntryFilter, okStatus, toEntry, toRevision } from './messages.ts'

/** `spire.api.server.entry.v1.Entry` */
export const entryService = (server: Server): Mounted<Caller> =>
  mount<typeof Entry, Caller>(Entry, {
    countEntries: async ({ filter }) => ({ count: await countEntries(server, fromEntryFilter(filter)) }),

    async listEntries({ filter, outputMask, pageSize, pageToken }, { peer }) {
      const { entries, nextToken } = await listEntries(server, fromEntryFilter(filter), { size: pageSize, token: pageToken }, peer)
      return { entries: entries.map((entry) => toEntry(entry, outputMask)), nextPageToken: nextToken }
    },

    getEntry: async ({ id, outputMask }) => toEntry(await findEntry(server, id), outputMask),

    async batchCreateEntry({ entries, outputMask }, { peer }) {
      checkBatch(entries.length)
      return { results: await Promise.all(entries.map((entry) => create(server, entry, outputMask, peer))) }
    },

    async batchUpdateEntry({ entries, inputMask, outputMask }, { peer }) {
      checkBatch(entries.length)
      return { results: await Promise.all(entries.map((entry) => update(server, entry, inputMask, outputMask, peer))) }
    },

    async batchDeleteEntry({ ids }, { peer }) {
      checkBatch(ids.length)
      const results = ids.map(async (id) => {
        const status = await deleteEntry(server, id, peer).then(
          () => okStatus,
          (error: unknown) => failedItem(server.log, error),
        )
        return { status, id }
      })
      return { results: await Promise.all(results) }
    },

    async getAuthorizedEntries({ outputMask }, { peer }) {
      const entries = await entitledEntries(server, agentOf(peer))
      return { entries: entries.map((entry) => toEntry(entry, outputMask)) }
    },

    syncAuthorizedEntries: (requests, { peer }) => sync(server, requests, peer),
  })

async function create(server: Server, message: EntryMessage, mask: EntryMask | undefined, caller: Caller) {
  try {
    const { created, entry } = await createEntry(server, fromEntry(message), caller)
    return { status: created ? okStatus : similar, entry: toEntry(entry, mask) }
  } catch (error) {
    return { status: failedItem(server.log, error) }
  }
}

async function update(
  server: Server,
  message: EntryMessage,
  inputMask: EntryMask | undefined,
  outputMask: EntryMask | undefined,
  caller: Caller,
) {
  try {
    return { status: okStatus, entry: toEntry(await updateEntry(server, message.id, changedBy(message, inputMask), caller), outputMask) }
  } catch (error) {
    return { status: failedItem(server.log, error) }
  }
}

/**
 * What an agent may serve, sent as changes: up to a page of entries at once; above that first every id with its revision, a page at a time,
 * and then the entries whose ids the agent asks for. Revisions and entries are never in one answer.
 */
async function* sync(server: Server, requests: AsyncIterable<SyncAuthorizedEntriesRequest>, caller: Caller) {
  const incoming = requests[Symbol.asyncIterator]()
  const first = await incoming.next()
  if (first.done) return
  const mask = readFirst(first.value)
  const entitled = await entitledEntries(server, agentOf(caller))
  if (entitled.length <= syncPage) {
    yield { entries: entitled.map((entry) => toEntry(entry, mask)) }
    return
  }
  for (const { page, more } of pages(entitled)) yield { entryRevisions: page.map(toRevision), more }

  const byId = new Map(entitled.map((entry) => [entry.id, entry]))
  for (let next = await incoming.next(); !next.done; next = await incoming.next()) {
    if (next.value.outputMask) throw bad('api.late-mask', 'the output mask comes with the first request only')
    const wanted = new Set(next.value.ids)
    const found = [...wanted].map((id) => byId.get(id)).filter((entry): entry is RegistrationEntry => entry !== undefined)
    for (const { page, more } of pages(found)) yield { entries: page.map((entry) => toEntry(entry, mask)), more }
  }
}

function readFirst({ ids, outputMask }: SyncAuthorizedEntriesRequest): EntryMask | undefined {
  if (ids.length > 0) throw bad('api.early-ids', 'ids come with later requests only')
  if (outputMask && !outputMask.revisionNumber) throw bad('api.revision-masked', 'revision number cannot be masked')
  return outputMask
}

/** At least one, which may be empty: every question gets an answer. */
function* pages(entries: readonly RegistrationEntry[]): Generator<{ readonly page: readonly RegistrationEntry[]; readonly more: boolean }> {
  let from = 0
  do {
    const page = entries.slice(from, from + syncPage)
    from += syncPage
    yield { page, more: from < entries.length }
  } while (from < entries.length)
}

function bad(reason: string, text: string): Failure {
  return new Failure('invalid_argument', reason, { public: text })
}

/** SPIRE's agents take the size of the first page for the size of all. */
const syncPage = 500
