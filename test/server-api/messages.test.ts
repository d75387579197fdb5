import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { anyUnpack } from '@bufbuild/protobuf/wkt'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Failure, type Category } from '../../src/kernel/failure.ts'
import type { RegistrationEntry } from '../../src/registry/entry.ts'
import {
  AgentMaskSchema,
  BundleMaskSchema,
  EntryMaskSchema,
  EntrySchema,
  PermissionDeniedDetailsSchema,
  PermissionDeniedDetails_Reason as Reason,
  SelectorMatchSchema,
  SPIFFEIDSchema,
  type EntryMask,
} from '../../src/rpc/gen/spire/api/types/types_pb.ts'
import { ListAgentsRequest_FilterSchema } from '../../src/rpc/gen/spire/api/server/agent/v1/agent_pb.ts'
import { ListEntriesRequest_FilterSchema } from '../../src/rpc/gen/spire/api/server/entry/v1/entry_pb.ts'
import { fromWireStatus, toWireStatus } from '../../src/rpc/status.ts'
import {
  changedBy,
  detailsFor,
  fromAgentFilter,
  fromEntry,
  fromEntryFilter,
  fromSpiffeId,
  readEntry,
  readStatus,
  toAgent,
  toBundle,
  toEntry,
  understood,
} from '../../src/server-api/messages.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { entry, node } from '../store/sample.ts'

const word = fc.stringMatching(/^[a-z0-9]{1,8}$/)
const anyEntry: fc.Arbitrary<RegistrationEntry> = fc
  .record({
    id: word,
    spiffeId: word.map((w) => `spiffe://example.org/${w}`),
    parentId: word.map((w) => `spiffe://example.org/spire/agent/${w}`),
    selectors: fc.array(
      word.map((w) => `unix:${w}`),
      { minLength: 1, maxLength: 4 },
    ),
    x509SvidTtl: fc.nat(100_000).map((s) => s * 1000),
    jwtSvidTtl: fc.nat(100_000).map((s) => s * 1000),
    federatesWith: fc.uniqueArray(
      word.map((w) => `${w}.org`),
      { maxLength: 3 },
    ),
    admin: fc.boolean(),
    downstream: fc.boolean(),
    storeSvid: fc.boolean(),
    dnsNames: fc.array(word, { maxLength: 3 }),
    hint: word,
    disableX509SvidPrefetch: fc.boolean(),
    jwtSvidIncludeJti: fc.boolean(),
    revision: fc.nat().map(BigInt),
    createdAt: fc.nat(4_000_000).map((s) => s * 1000),
    expires: fc.option(fc.integer({ min: 1, max: 4_000_000 }).map((s) => s * 1000)),
  })
  .map(({ expires, ...fields }) => entry({ ...fields, ...(expires === null ? {} : { expiresAt: expires }) }))

const onTheWire = (one: RegistrationEntry, mask?: EntryMask) =>
  fromBinary(EntrySchema, toBinary(EntrySchema, create(EntrySchema, toEntry(one, mask))))
const maskFields = EntryMaskSchema.fields.map(({ localName }) => localName)
const maskOf = (names: readonly string[]): EntryMask => create(EntryMaskSchema, Object.fromEntries(names.map((name) => [name, true])))
/** The fields of a message that are not as in an empty one. */
const present = (message: object): string[] => {
  const empty = create(EntrySchema) as unknown as Record<string, unknown>
  return Object.entries(message)
    .filter(([name, value]) => !name.startsWith('$') && JSON.stringify(value, text) !== JSON.stringify(empty[name], text))
    .map(([name]) => name)
}
const text = (_key: string, value: unknown): unknown => (typeof value === 'bigint' ? String(value) : value)

describe('a SPIFFE ID on the wire', () => {
  test.each([
    ['absent', undefined, 'api.missing-field'],
    ['with a scheme in its trust domain', { trustDomain: 'spiffe://example.org', path: '/a' }, 'trust-domain.bad-character'],
    ['with a path in its trust domain', { trustDomain: 'example.org/a', path: '' }, 'trust-domain.bad-character'],
    ['without a trust domain', { trustDomain: '', path: '/a' }, 'trust-domain.empty'],
    ['with a path that does not begin with a slash', { trustDomain: 'example.org', path: 'evil.org/a' }, 'spiffe-id.path-character'],
    ['with an empty segment', { trustDomain: 'example.org', path: '/a//b' }, 'spiffe-id.empty-segment'],
    ['with a trailing slash', { trustDomain: 'example.org', path: '/a/' }, 'spiffe-id.trailing-slash'],
    ['with dots', { trustDomain: 'example.org', path: '/../a' }, 'spiffe-id.dot-segment'],
    ['with a percent sign', { trustDomain: 'example.org', path: '/%61' }, 'spiffe-id.path-percent'],
  ])('R-1 %s is refused, and the refusal names the field', (_, message, reason) => {
    const read = () => fromSpiffeId('parent_id', message && create(SPIFFEIDSchema, message))
    expect(read).toThrow(expect.objectContaining({ reason }))
    expect(read).toThrow('`parent_id`')
  })
})

describe('an entry on the wire', () => {
  test.each([
    ['a selector without type', { selectors: [{ type: '', value: 'x' }] }, 'selector.malformed'],
    ['a selector with a colon in its type', { selectors: [{ type: 'a:b', value: 'x' }] }, 'selector.malformed'],
    ['a selector without value', { selectors: [{ type: 'a', value: '' }] }, 'selector.malformed'],
    ['a malformed trust domain', { federatesWith: ['Upper.org'] }, 'trust-domain.bad-character'],
    ['an expiry before 1970', { expiresAt: -1n }, 'api.bad-time'],
    ['an expiry after the year 9999', { expiresAt: 2n ** 62n }, 'api.bad-time'],
  ])('with %s is refused', (_, fields, reason) => {
    expect(() => fromEntry(create(EntrySchema, { ...(toEntry(entry()) as object), ...fields }))).toThrow(
      expect.objectContaining({ reason }),
    )
  })

  test('comes back as it went out, every field', () => {
    fc.assert(
      fc.property(anyEntry, (one) => {
        expect(readEntry(onTheWire(one))).toEqual(one)
      }),
    )
  })

  test('an output mask lets through the id and the fields that it names, and nothing else', () => {
    fc.assert(
      fc.property(anyEntry, fc.subarray(maskFields), (one, names) => {
        const whole = present(onTheWire(one))
        expect(present(onTheWire(one, maskOf(names))).sort()).toEqual(whole.filter((name) => name === 'id' || names.includes(name)).sort())
      }),
    )
  })

  test('an input mask takes the fields that it names from the message, and leaves the others', () => {
    const own = new Set(['revisionNumber', 'createdAt'])
    fc.assert(
      fc.property(anyEntry, anyEntry, fc.subarray(maskFields), (stored, wanted, names) => {
        const changed = changedBy(onTheWire(wanted), maskOf(names))(stored)
        const now = create(EntrySchema, toEntry({ ...stored, expiresAt: undefined as never, ...changed, id: stored.id }))
        const [before, asked] = [create(EntrySchema, toEntry(stored)), create(EntrySchema, toEntry(wanted))]
        for (const name of maskFields as (keyof EntryMask & keyof typeof now)[]) {
          expect(now[name], name).toEqual(names.includes(name) && !own.has(name) ? asked[name] : before[name])
        }
        expect(changed.id).toBe(stored.id)
      }),
    )
  })

  test('without an input mask every field is taken, and the id stays', () => {
    fc.assert(
      fc.property(anyEntry, anyEntry, (stored, wanted) => {
        const { id: _, revision: _r, createdAt: _c, ...fields } = wanted
        expect(changedBy(onTheWire(wanted), undefined)(stored)).toEqual({ ...fields, id: stored.id })
      }),
    )
  })
})

describe('filters', () => {
  test('R-10 a match that is not known is refused', () => {
    const filter = create(ListEntriesRequest_FilterSchema, { bySelectors: create(SelectorMatchSchema, { match: 9 as never }) })
    expect(() => fromEntryFilter(filter)).toThrow(expect.objectContaining({ reason: 'api.bad-match' }))
  })

  test('an entry filter asks for what was set, also for false and for nothing', () => {
    expect(fromEntryFilter(undefined)).toEqual({})
    const filter = create(ListEntriesRequest_FilterSchema, {
      bySpiffeId: { trustDomain: 'example.org', path: '/a' },
      bySelectors: { selectors: [{ type: 'x', value: '1' }], match: 2 },
      byFederatesWith: { trustDomains: ['b.org'], match: 3 },
      byHint: '',
      byDownstream: false,
    })
    expect(fromEntryFilter(filter)).toEqual({
      spiffeId: 'spiffe://example.org/a',
      selectors: { selectors: [{ type: 'x', value: '1' }], match: 'superset' },
      federatesWith: { trustDomains: ['b.org'], match: 'any' },
      hint: '',
      downstream: false,
    })
  })

  test.each([
    '',
    '2026',
    '2026-01-02T15:04:05Z',
    '2026-01-02 15:04:05',
    '2026-13-02 15:04:05 +0000 UTC',
    '2026-01-02 15:04:05 +0000 UTC x',
  ])('a time written as %j is refused, unless there is none', (byExpiresBefore) => {
    const read = () => fromAgentFilter(create(ListAgentsRequest_FilterSchema, { byExpiresBefore }))
    if (byExpiresBefore === '') expect(read()).toEqual({})
    else expect(read).toThrow(expect.objectContaining({ reason: 'api.bad-time' }))
  })

  test('a time is read as Go prints it', () => {
    const read = (byExpiresBefore: string) => fromAgentFilter(create(ListAgentsRequest_FilterSchema, { byExpiresBefore })).expiresBefore
    expect(read('2026-01-01 02:00:00 +0200 CEST')).toBe(1_767_225_600_000)
    expect(read('2026-01-01 00:00:00 +0000 UTC')).toBe(1_767_225_600_000)
    expect(read('2025-12-31 23:00:00 -0100 -01')).toBe(1_767_225_600_000)
  })
})

describe('agents and bundles', () => {
  test('an agent mask lets through the id and the fields that it names', () => {
    for (const { localName } of AgentMaskSchema.fields) {
      expect(Object.keys(toAgent(node(), create(AgentMaskSchema, { [localName]: true }))).sort()).toEqual(['id', localName].sort())
    }
    expect(toAgent(node({ serial: '0a1f' }))).toMatchObject({ x509svidSerialNumber: '2591' })
    expect(toAgent(node({ serial: '', banned: true }))).toMatchObject({ x509svidSerialNumber: '', banned: true })
  })

  test('a bundle mask lets through the trust domain and the fields that it names', () => {
    const bundle = {
      trustDomain: parseTrustDomain('example.org'),
      x509Authorities: [],
      jwtAuthorities: [],
      witAuthorities: [],
      sequence: 7n,
    }
    for (const { localName } of BundleMaskSchema.fields) {
      expect(Object.keys(toBundle(bundle, create(BundleMaskSchema, { [localName]: true }))).sort()).toEqual(
        ['trustDomain', localName].sort(),
      )
    }
  })
})

describe('what travels with a failure', () => {
  const sent = (failure: Failure) => fromWireStatus(toWireStatus(failure, detailsFor(failure)))

  test.each([
    ['server.agent-expired', Reason.AGENT_EXPIRED],
    ['server.agent-not-attested', Reason.AGENT_NOT_ATTESTED],
    ['server.agent-not-active', Reason.AGENT_NOT_ACTIVE],
    ['server.agent-banned', Reason.AGENT_BANNED],
    ['server.agent-must-reattest', Reason.AGENT_MUST_REATTEST],
  ])('%s tells an agent why, in the form that SPIRE reads', (reason, code) => {
    const failure = new Failure('permission_denied', reason, { public: 'no' })
    expect(anyUnpack(detailsFor(failure)[0]!, PermissionDeniedDetailsSchema)?.reason).toBe(code)
    expect(understood(sent(failure))).toMatchObject({ category: 'permission_denied', reason, message: 'no' })
  })

  test('C-29 a frozen agent is told why, and one of SPIRE that it has to stop', () => {
    const failure = new Failure('permission_denied', 'server.agent-cloned', { public: 'no' })
    expect(anyUnpack(detailsFor(failure)[0]!, PermissionDeniedDetailsSchema)?.reason).toBe(Reason.AGENT_BANNED)
    expect(understood(sent(failure))).toMatchObject({ category: 'permission_denied', reason: 'server.agent-cloned' })
  })

  test('what SPIRE tells without our reason code is understood', () => {
    const failure = new Failure('permission_denied', 'server.agent-banned', { public: 'no' })
    const bare = fromWireStatus(toWireStatus(failure, detailsFor(failure).slice(0, 1)))
    expect(understood(bare).reason).toBe('server.agent-banned')
  })

  test.each<[Category, string]>([
    ['permission_denied', 'server.denied'],
    ['unauthenticated', 'server.peer-untrusted'],
    ['internal', 'attest.bad-verdict'],
  ])('a failure of category %s tells no reason code', (category, reason) => {
    const failure = new Failure(category, reason, { public: 'no', internal: { secret: 1 } })
    expect(detailsFor(failure)).toEqual([])
    expect(understood(sent(failure)).reason).toMatch(/^rpc\./)
  })

  test('a mistake of the caller keeps its reason code', () => {
    const failure = new Failure('not_found', 'entry.not-found', { public: 'there is no entry `x`' })
    expect(understood(sent(failure))).toMatchObject({ category: 'not_found', reason: 'entry.not-found' })
  })

  test('an item without a status has failed', () => {
    expect(readStatus(undefined)).toMatchObject({ category: 'internal' })
  })
})
