import type { RegistrationEntry } from '../registry/entry.ts'
import { AmendedEntries, type AmendedEntry } from '../rpc/gen/vidimus/api/entry/v1/entry_pb.ts'
import { mount, type Mounted } from '../rpc/handler.ts'
import type { Caller } from '../server/caller.ts'
import { createEntry, findAdditions, updateEntry } from '../server/manage-entries.ts'
import type { Server } from '../server/server.ts'
import { checkBatch, failedItem, similar } from './batch.ts'
import { fromAmended, okStatus, toAdditions, toAmended } from './messages.ts'

/** `vidimus.api.entry.v1.AmendedEntries`: entries with what they add to their SVIDs, for operators. */
export const amendedEntries = (server: Server): Mounted<Caller> =>
  mount<typeof AmendedEntries, Caller>(AmendedEntries, {
    async batchCreateAmended({ entries }, { peer }) {
      checkBatch(entries.length)
      const results = entries.map((message) =>
        answered(server, async () => {
          const { created, entry } = await createEntry(server, fromAmended(message), peer)
          return { status: created ? okStatus : similar, entry }
        }),
      )
      return { results: await Promise.all(results) }
    },

    async batchUpdateAmended({ entries }, { peer }) {
      checkBatch(entries.length)
      const results = entries.map((message) =>
        answered(server, async () => ({
          status: okStatus,
          entry: await updateEntry(server, idOf(message), () => fromAmended(message), peer),
        })),
      )
      return { results: await Promise.all(results) }
    },

    async listAdditions({ ids }) {
      checkBatch(ids.length, maxIds)
      const found = await findAdditions(server, ids)
      return { additions: Object.fromEntries(found.map((entry) => [entry.id, toAdditions(entry)])) }
    },
  })

async function answered(
  server: Server,
  change: () => Promise<{ readonly status: { code: number; message: string }; readonly entry: RegistrationEntry }>,
) {
  try {
    const { status, entry } = await change()
    return { status, entry: toAmended(entry) }
  } catch (error) {
    return { status: failedItem(server.log, error) }
  }
}

const idOf = ({ entry }: AmendedEntry): string => entry?.id ?? ''

/** A page of SPIRE's lists. */
const maxIds = 500
