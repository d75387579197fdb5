/** What a call is about, for policies that ask (`entry.spiffeId`, `agent.id`, …). */
import type { ServerApiAttributes } from '../policy/request.ts'
import type { Server } from '../server/server.ts'
import { subjectOf, type EntryFacts, type Subject } from './messages.ts'

/** One set of facts for each thing that a request is about. Policies decide what is unknown on the refusing side. */
export async function subjectsOf(server: Pick<Server, 'entries'>, request: unknown): Promise<readonly ServerApiAttributes[]> {
  const subject = subjectOf(request)
  switch (subject.kind) {
    case 'none':
      return []
    case 'agent':
      return [subject.id ? { 'agent.id': subject.id } : {}]
    case 'drafts':
      return subject.drafts.map(attributesOf)
    case 'entries':
      return (await Promise.all(subject.entries.map((one) => storedAttributes(server, one)))).flat()
    default:
      throw new Error(`bug: no such subject: ${String(subject satisfies never)}`)
  }
}

type Named = Extract<Subject, { kind: 'entries' }>['entries'][number]

/** A change is about the entry as it is, and about the entry that it would become. */
async function storedAttributes({ entries }: Pick<Server, 'entries'>, { id, change }: Named): Promise<ServerApiAttributes[]> {
  const entry = await entries.find(id)
  if (!entry) return [{}]
  return change ? [attributesOf(entry), attributesOf(change(entry) ?? {})] : [attributesOf(entry)]
}

function attributesOf({ spiffeId, parentId, x509SvidTtl, admin, downstream }: EntryFacts): ServerApiAttributes {
  return {
    ...(spiffeId && { 'entry.spiffeId': spiffeId }),
    ...(parentId && { 'entry.parentId': parentId }),
    ...(x509SvidTtl !== undefined && { 'entry.x509Ttl': x509SvidTtl }),
    ...(admin !== undefined && { 'entry.admin': admin }),
    ...(downstream !== undefined && { 'entry.downstream': downstream }),
  }
}
