import { administered } from '../audit/event.ts'
import { Failure, failedWith } from '../kernel/failure.ts'
import { uuid } from '../kernel/random.ts'
import { checkEntry, type EntryDraft, type EntryFilter, type RegistrationEntry } from '../registry/entry.ts'
import { callerName, type Caller } from './caller.ts'
import { nextToken, readPage, type PageRequest } from './paging.ts'
import type { Server } from './server.ts'

type Needs = Pick<Server, 'trustDomain' | 'clock' | 'random' | 'audit' | 'entries' | 'ca'>

/**
 * Stores an entry, or tells which similar one there is.
 * @throws Failure those of `checkEntry`, `entry.id-taken`, `ca.subject-not-allowed`, `ca.claim-not-allowed`
 */
export async function createEntry(
  server: Needs,
  draft: EntryDraft,
  caller: Caller,
): Promise<{ readonly created: boolean; readonly entry: RegistrationEntry }> {
  const checked = checkDraft(server, draft)
  const outcome = await server.entries.create({
    ...checked,
    id: checked.id ?? uuid(server.random),
    revision: 0n,
    createdAt: server.clock.now(),
  })
  if (outcome.created) await tell(server, 'entry.created', outcome.entry, caller)
  return outcome
}

/**
 * Changes an entry by its id. `change` may run again when somebody else changed the entry at the same time.
 * @throws Failure `entry.not-found`, `entry.similar-exists`, `entry.changed-meanwhile` after a few tries, those of `checkEntry`
 */
export async function updateEntry(
  server: Needs,
  id: string,
  change: (entry: RegistrationEntry) => EntryDraft,
  caller: Caller,
): Promise<RegistrationEntry> {
  for (let tries = 1; ; tries++) {
    const before = await findEntry(server, id)
    const after = { ...checkDraft(server, change(before)), id, revision: before.revision + 1n, createdAt: before.createdAt }
    try {
      await server.entries.update(after, before.revision)
      await tell(server, 'entry.updated', after, caller)
      return after
    } catch (error) {
      if (tries === maxTries || !failedWith(error, 'entry.changed-meanwhile')) throw error
    }
  }
}

/** @throws Failure `entry.not-found` */
export async function deleteEntry(server: Needs, id: string, caller: Caller): Promise<void> {
  const entry = await server.entries.remove(id)
  if (!entry) throw notFound(id)
  await tell(server, 'entry.deleted', entry, caller)
}

/** @throws Failure `entry.not-found` */
export async function findEntry(server: Pick<Server, 'entries'>, id: string): Promise<RegistrationEntry> {
  const entry = await server.entries.find(id)
  if (!entry) throw notFound(id)
  return entry
}

/** Those of these entries that add something to their SVIDs. */
export async function findAdditions(server: Pick<Server, 'entries'>, ids: readonly string[]): Promise<readonly RegistrationEntry[]> {
  const found: RegistrationEntry[] = []
  for (const id of new Set(ids)) {
    const entry = await server.entries.find(id)
    if (entry?.subject || entry?.claims) found.push(entry)
  }
  return found
}

/** @throws Failure `paging.bad-size`, `paging.bad-token`, `entry.empty-filter` */
export async function listEntries(
  server: Pick<Server, 'entries'>,
  filter: EntryFilter,
  page: PageRequest,
  caller: Caller,
): Promise<{ readonly entries: readonly RegistrationEntry[]; readonly nextToken: string }> {
  checkFilter(filter)
  const scope = { caller: callerName(caller), filter }
  const found = await server.entries.list(filter, readPage(page, scope))
  return { entries: found.items, nextToken: nextToken(found, scope) }
}

/** @throws Failure `entry.empty-filter` */
export function countEntries(server: Pick<Server, 'entries'>, filter: EntryFilter): Promise<number> {
  checkFilter(filter)
  return server.entries.count(filter)
}

/** A filter by an empty list would be taken for one that lets everything through. */
function checkFilter({ selectors, federatesWith }: EntryFilter): void {
  const empty =
    selectors?.selectors.length === 0 ? 'by_selectors' : federatesWith?.trustDomains.length === 0 ? 'by_federates_with' : undefined
  if (empty)
    throw new Failure('invalid_argument', 'entry.empty-filter', { public: `the filter \`${empty}\` is empty: expected at least one` })
}

/** An entry that nothing would be issued for is refused here, where somebody reads why. */
function checkDraft({ ca, trustDomain }: Needs, draft: EntryDraft): EntryDraft {
  ca.demandAllowed(draft)
  return checkEntry(draft, trustDomain)
}

function tell({ audit }: Needs, what: string, entry: RegistrationEntry, caller: Caller): Promise<void> {
  const { id, spiffeId, parentId, revision, subject, claims } = entry
  const added = {
    ...(subject && { addsSubject: JSON.stringify(subject) }),
    ...(claims && { addsClaims: Object.keys(claims).join(' ') }),
  }
  return audit.append(
    administered({ what, subject: id, caller: callerName(caller) }, { spiffeId, parentId, revision: String(revision), ...added }),
  )
}

function notFound(id: string): Failure {
  return new Failure('not_found', 'entry.not-found', { public: `there is no entry \`${id.slice(0, 255)}\`` })
}

const maxTries = 5
