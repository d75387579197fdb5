import { z } from 'zod'
import { formatInstant } from '../../kernel/clock.ts'
import { formatDuration, parseDuration, seconds } from '../../kernel/duration.ts'
import { Failure } from '../../kernel/failure.ts'
import type { RegistrationEntry } from '../../registry/entry.ts'
import { connectAdmin } from '../../server-api/client.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { formatSelector, parseSelector } from '../../spiffe/selector.ts'
import { parseTrustDomain } from '../../spiffe/trust-domain.ts'
import { command } from '../command.ts'
import { parsed, positional, serverSocket, within } from '../flags.ts'
import { facts } from '../output.ts'

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
    x509Ttl: parsed(parseDuration).optional().describe("lifetime of its X509-SVIDs; by default the server's").meta({ value: 'duration' }),
    jwtTtl: parsed(parseDuration).optional().describe("lifetime of its JWT-SVIDs; by default the server's").meta({ value: 'duration' }),
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
  ],
  async run({ serverSocket, selector, x509Ttl, jwtTtl, dnsName, id, ...rest }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const draft = {
      ...rest,
      ...(id === undefined ? {} : { id }),
      selectors: selector,
      x509SvidTtl: x509Ttl ?? 0,
      jwtSvidTtl: jwtTtl ?? 0,
      dnsNames: dnsName,
      ...plain,
    }
    const [outcome] = await server.entries.create([draft], within(stop))
    if (outcome === undefined) throw new Error('bug: one draft has one outcome')
    if (outcome instanceof Failure) throw outcome
    const { created, entry } = outcome
    return {
      value: { created, entry: told(entry) },
      text: `${created ? 'created' : 'exists already, unchanged'}\n${describe(entry)}`,
      ok: created,
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
    return { value: { entries: entries.map(told) }, text: entries.length === 0 ? 'no entries' : entries.map(describe).join('\n\n') }
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
    ['federates with', entry.federatesWith.join(' ')],
    ['hint', entry.hint],
    ['admin', entry.admin ? 'yes' : ''],
    ['downstream', entry.downstream ? 'yes' : ''],
    ['expires', entry.expiresAt === undefined ? '' : formatInstant(entry.expiresAt)],
    ['revision', String(entry.revision)],
  ])
}

/** TTLs in whole seconds, moments in RFC 3339, selectors as text. */
function told({ x509SvidTtl, jwtSvidTtl, createdAt, expiresAt, selectors, revision, ...entry }: RegistrationEntry) {
  return {
    ...entry,
    selectors: selectors.map(formatSelector),
    x509SvidTtlSeconds: x509SvidTtl / seconds(1),
    jwtSvidTtlSeconds: jwtSvidTtl / seconds(1),
    revision: Number(revision),
    createdAt: formatInstant(createdAt),
    ...(expiresAt === undefined ? {} : { expiresAt: formatInstant(expiresAt) }),
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
