import { z } from 'zod'
import { formatInstant } from '../../kernel/clock.ts'
import { formatDuration, parseDuration } from '../../kernel/duration.ts'
import { Failure } from '../../kernel/failure.ts'
import type { RegistrationEntry } from '../../registry/entry.ts'
import { connectAdmin } from '../../server-api/client.ts'
import { readClaims, type AddedClaims } from '../../spiffe/claims.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { formatSelector, parseSelector } from '../../spiffe/selector.ts'
import { parseTrustDomain } from '../../spiffe/trust-domain.ts'
import type { SubjectAttributes } from '../../x509/subject.ts'
import { command } from '../command.ts'
import { readEntryFile, readSubject, toldEntry } from '../entry-file.ts'
import { parsed, positional, serverSocket, within } from '../flags.ts'
import { facts } from '../output.ts'

/** `{}`: what was there is taken away. */
const none = null

const draftFlags = {
  x509Ttl: parsed(parseDuration).optional().describe("lifetime of its X509-SVIDs; by default the server's").meta({ value: 'duration' }),
  jwtTtl: parsed(parseDuration).optional().describe("lifetime of its tokens; by default the server's").meta({ value: 'duration' }),
  subject: parsed((text) => readSubject(text) ?? none)
    .optional()
    .describe('attributes for the subject of its certificates, JSON: country, organization, commonName, …; `{}` for none')
    .meta({ value: 'json' }),
  claims: parsed((text) => readClaims(text) ?? none)
    .optional()
    .describe('claims to add to its tokens, JSON; `{}` for none')
    .meta({ value: 'json' }),
}

export const entryCreate = command({
  name: 'entry create',
  summary: 'say which workloads hold an identity',
  flags: z.strictObject({
    ...serverSocket,
    spiffeId: parsed(parseSpiffeId).describe('the identity').meta({ value: 'id' }),
    parentId: parsed(parseSpiffeId).describe('the agent, or the identity of several, whose workloads may hold it').meta({ value: 'id' }),
    selector: z
      .array(parsed(parseSelector))
      .min(1)
      .describe('what must be true of the workload; all of them')
      .meta({ value: 'type:value' }),
    ...draftFlags,
    dnsName: z.array(z.string().min(1)).default([]).describe('a DNS name for its certificate').meta({ value: 'name' }),
    federatesWith: z
      .array(parsed(parseTrustDomain))
      .default([])
      .describe('a trust domain whose bundle it needs')
      .meta({ value: 'trust-domain' }),
    hint: z.string().default('').describe('tells the workload which of several identities this is').meta({ value: 'text' }),
    admin: z.boolean().default(false).describe('may administer this server'),
    downstream: z.boolean().default(false).describe('may be a CA under this one'),
    id: z.string().optional().describe('an id of your own').meta({ value: 'text' }),
  }),
  examples: [
    'vidimus entry create --spiffe-id spiffe://example.org/web --parent-id spiffe://example.org/spire/agent/join_token/TOKEN --selector unix:path:/usr/bin/web --selector unix:uid:1000',
    'vidimus entry create --spiffe-id spiffe://example.org/db --parent-id spiffe://example.org/node --selector unix:user:db --dns-name db.example.org --subject \'{"organizationalUnit":"Storage"}\' --claims \'{"tier":"gold"}\'',
  ],
  async run({ serverSocket, selector, x509Ttl, jwtTtl, dnsName, id, subject, claims, ...rest }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const draft = {
      ...rest,
      ...(id === undefined ? {} : { id }),
      selectors: selector,
      x509SvidTtl: x509Ttl ?? 0,
      jwtSvidTtl: jwtTtl ?? 0,
      dnsNames: dnsName,
      ...additions({ subject, claims }),
      ...plain,
    }
    const [outcome] = await server.entries.create([draft], within(stop))
    if (outcome === undefined) throw new Error('bug: one draft has one outcome')
    if (outcome instanceof Failure) throw outcome
    const { created, entry } = outcome
    return {
      value: { created, entry: toldEntry(entry) },
      text: `${created ? 'created' : 'exists already, unchanged'}\n${describe(entry)}`,
      ok: created,
    }
  },
})

export const entryUpdate = command({
  name: 'entry update',
  summary: 'change a registration entry; agents have its SVIDs issued anew',
  flags: z.strictObject({
    ...serverSocket,
    id: positional(z.string().min(1)),
    spiffeId: parsed(parseSpiffeId).optional().describe('another identity').meta({ value: 'id' }),
    parentId: parsed(parseSpiffeId).optional().describe('another parent').meta({ value: 'id' }),
    selector: z.array(parsed(parseSelector)).optional().describe('selectors, instead of all that it has').meta({ value: 'type:value' }),
    ...draftFlags,
    dnsName: z.array(z.string().min(1)).optional().describe('DNS names, instead of all that it has').meta({ value: 'name' }),
    federatesWith: z
      .array(parsed(parseTrustDomain))
      .optional()
      .describe('trust domains, instead of all that it has')
      .meta({ value: 'trust-domain' }),
    hint: z.string().optional().describe('another hint').meta({ value: 'text' }),
  }),
  positional: [{ name: 'id', help: 'id of an entry, as `vidimus entry show` prints it' }],
  examples: [`vidimus entry update 8f3c… --claims '{"tier":"silver"}'`, `vidimus entry update 8f3c… --subject '{}'`],
  async run({ serverSocket, id, selector, x509Ttl, jwtTtl, dnsName, subject, claims, ...wishes }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const changes = {
      ...given({ ...wishes, selectors: selector, x509SvidTtl: x509Ttl, jwtSvidTtl: jwtTtl, dnsNames: dnsName }),
      ...additions({ subject, claims }),
    }
    const [outcome] = await server.entries.update([{ ...(await server.entries.find(id, within(stop))), ...changes }], within(stop))
    if (outcome === undefined) throw new Error('bug: one entry has one outcome')
    if (outcome instanceof Failure) throw outcome
    return { value: { entry: toldEntry(outcome) }, text: `updated\n${describe(outcome)}` }
  },
})

export const entryImport = command({
  name: 'entry import',
  summary: 'create the registration entries of a file',
  flags: z.strictObject({ ...serverSocket, file: positional(z.string().min(1)) }),
  positional: [{ name: 'file', help: 'JSON as `vidimus entry show --output json` prints it; `-` for standard input' }],
  examples: ['vidimus entry import entries.json'],
  async run({ serverSocket, file }, { disk, stop }) {
    const drafts = readEntryFile(await disk.read(file))
    await using server = connectAdmin(serverSocket)
    const results: { spiffeId: string; id?: string; created: boolean; why?: string }[] = []
    for (let from = 0; from < drafts.length; from += importBatch) {
      const outcomes = await server.entries.create(drafts.slice(from, from + importBatch), within(stop))
      results.push(
        ...outcomes.map((outcome, index) =>
          outcome instanceof Failure
            ? { spiffeId: drafts[from + index]!.spiffeId, created: false, why: outcome.message }
            : { spiffeId: outcome.entry.spiffeId, id: outcome.entry.id, created: outcome.created },
        ),
      )
    }
    const text = results.map(({ spiffeId, id, created, why }) =>
      why === undefined ? `${created ? 'created' : 'exists already'} ${spiffeId} ${id}` : `not created ${spiffeId}: ${why}`,
    )
    return {
      value: { results },
      text: text.length === 0 ? 'no entries' : text.join('\n'),
      ok: results.every(({ why }) => why === undefined),
    }
  },
})

export const entryShow = command({
  name: 'entry show',
  summary: 'show registration entries: all of them, one, or those that match',
  flags: z.strictObject({
    ...serverSocket,
    id: z.string().optional().describe('only the entry with this id').meta({ value: 'id' }),
    spiffeId: parsed(parseSpiffeId).optional().describe('only entries of this identity').meta({ value: 'id' }),
    parentId: parsed(parseSpiffeId).optional().describe('only entries under this parent').meta({ value: 'id' }),
    hint: z.string().optional().describe('only entries with this hint').meta({ value: 'text' }),
  }),
  async run({ serverSocket, id, ...filter }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const entries =
      id === undefined ? await server.entries.list(given(filter), within(stop)) : [await server.entries.find(id, within(stop))]
    return { value: { entries: entries.map(toldEntry) }, text: entries.length === 0 ? 'no entries' : entries.map(describe).join('\n\n') }
  },
})

export const entryDelete = command({
  name: 'entry delete',
  summary: 'delete registration entries; their workloads lose the identity',
  flags: z.strictObject({ ...serverSocket, ids: positional(z.array(z.string().min(1)).min(1).max(500)) }),
  positional: [{ name: 'ids', help: 'ids of entries, as `vidimus entry show` prints them', many: true }],
  async run({ serverSocket, ids }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const outcomes = await server.entries.remove(ids, within(stop))
    const results = ids.map((id, index) => ({ id, deleted: outcomes[index] === undefined, why: outcomes[index]?.message }))
    const text = results.map(({ id, deleted, why }) => (deleted ? `deleted ${id}` : `not deleted ${id}: ${why}`)).join('\n')
    return { value: { results }, text, ok: results.every(({ deleted }) => deleted) }
  },
})

function describe(entry: RegistrationEntry): string {
  const ttl = (duration: number) => (duration === 0 ? "the server's default" : formatDuration(duration))
  return facts([
    ['id', entry.id],
    ['spiffe id', entry.spiffeId],
    ['parent id', entry.parentId],
    ...entry.selectors.map((one) => ['selector', formatSelector(one)] as const),
    ['x509 ttl', ttl(entry.x509SvidTtl)],
    ['jwt ttl', ttl(entry.jwtSvidTtl)],
    ['dns names', entry.dnsNames.join(' ')],
    ['subject', entry.subject ? JSON.stringify(entry.subject) : ''],
    ['claims', entry.claims ? JSON.stringify(entry.claims) : ''],
    ['federates with', entry.federatesWith.join(' ')],
    ['hint', entry.hint],
    ['admin', entry.admin ? 'yes' : ''],
    ['downstream', entry.downstream ? 'yes' : ''],
    ['expires', entry.expiresAt === undefined ? '' : formatInstant(entry.expiresAt)],
    ['revision', String(entry.revision)],
  ])
}

/** What was said about additions; those that were taken away are undefined. */
function additions({
  subject,
  claims,
}: {
  readonly subject: SubjectAttributes | typeof none | undefined
  readonly claims: AddedClaims | typeof none | undefined
}): Pick<RegistrationEntry, 'subject' | 'claims'> {
  return {
    ...(subject === undefined ? {} : { subject: subject === none ? undefined : subject }),
    ...(claims === undefined ? {} : { claims: claims === none ? undefined : claims }),
  }
}

/** Without the keys that have no value. */
function given<T extends object>(filter: T): { [Key in keyof T]?: Exclude<T[Key], undefined> } {
  return Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== undefined)) as {
    [Key in keyof T]?: Exclude<T[Key], undefined>
  }
}

/** What has no flag yet because nothing acts on it here. */
const plain = { storeSvid: false, disableX509SvidPrefetch: false, jwtSvidIncludeJti: false }
/** So few that a message stays small, whatever the entries add. */
const importBatch = 100
