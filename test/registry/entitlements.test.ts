import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { EntryIndex } from '../../src/registry/entitlements.ts'
import type { RegistrationEntry } from '../../src/registry/entry.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseSelector, satisfies } from '../../src/spiffe/selector.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { entry } from '../store/sample.ts'

const here = parseTrustDomain('example.org')
const id = (path: string): string => `spiffe://example.org/${path}`
const agent = parseSpiffeId(id('spire/agent/join_token/a'))
const server = id('spire/server')

function indexOf(...entries: RegistrationEntry[]): EntryIndex {
  const index = new EntryIndex(here)
  index.apply({ whole: true, changed: entries, removed: [] })
  return index
}
const entitled = (index: EntryIndex, selectors: string[] = [], at = 0) =>
  index
    .entitled(agent, selectors.map(parseSelector), at)
    .map((one) => one.id)
    .sort()

describe('what an agent may fetch', () => {
  test('nothing that hangs on another node', () => {
    expect(entitled(indexOf(entry({ parentId: id('spire/agent/join_token/b') })))).toEqual([])
  })

  test('nothing through an alias of which it lacks a selector', () => {
    const index = indexOf(
      entry({ id: 'alias', spiffeId: id('cluster'), parentId: server, selectors: ['n:1', 'n:2'] }),
      entry({ id: 'web', parentId: id('cluster') }),
    )
    expect(entitled(index, ['n:1'])).toEqual([])
    expect(entitled(index, ['n:2'])).toEqual([])
    expect(entitled(index, ['n:0', 'n:1', 'n:2'])).toEqual(['web'])
  })

  test('nothing that expired, nor what hangs on it', () => {
    const index = indexOf(
      entry({ id: 'old', spiffeId: id('old'), parentId: agent, expiresAt: 100 }),
      entry({ id: 'below', spiffeId: id('below'), parentId: id('old') }),
    )
    expect(entitled(index, [], 99)).toEqual(['below', 'old'])
    expect(entitled(index, [], 100)).toEqual([])
  })

  test('what hangs on it at any depth, each once, even where parents go in a circle', () => {
    const index = indexOf(
      entry({ id: 'a', spiffeId: id('a'), parentId: agent }),
      entry({ id: 'b', spiffeId: id('b'), parentId: id('a') }),
      entry({ id: 'c', spiffeId: id('a'), parentId: id('b'), selectors: ['x:1'] }),
    )
    expect(entitled(index)).toEqual(['a', 'b', 'c'])
  })

  test('what was removed is gone, what was changed is as it now is', () => {
    const index = indexOf(entry({ id: 'a', parentId: agent }), entry({ id: 'b', parentId: agent, selectors: ['x:1'] }))
    index.apply({ whole: false, changed: [entry({ id: 'b', parentId: id('elsewhere'), selectors: ['x:1'] })], removed: ['a'] })
    expect([entitled(index), index.size, index.find('a')]).toEqual([[], 1, undefined])
  })

  test('an entry gives its holder a say only while it lasts', () => {
    const index = indexOf(
      entry({ spiffeId: id('boss'), admin: true, expiresAt: 100 }),
      entry({ id: '2', spiffeId: id('lower'), downstream: true }),
    )
    expect(index.isPrivileged(parseSpiffeId(id('boss')), 'admin', 99)).toBe(true)
    expect(index.isPrivileged(parseSpiffeId(id('boss')), 'admin', 100)).toBe(false)
    expect(index.isPrivileged(parseSpiffeId(id('boss')), 'downstream', 0)).toBe(false)
    expect(index.isPrivileged(parseSpiffeId(id('lower')), 'downstream', 0)).toBe(true)
    index.apply({ whole: false, changed: [], removed: ['2'] })
    expect(index.isPrivileged(parseSpiffeId(id('lower')), 'downstream', 0)).toBe(false)
  })

  test('R-46 after any changes the index says what a walk over all entries says', () => {
    const names = ['a', 'b', 'c', 'd']
    const anyEntry = fc.record({
      id: fc.constantFrom('1', '2', '3', '4', '5', '6'),
      spiffeId: fc.constantFrom(...names.map(id)),
      parentId: fc.constantFrom(agent, server, ...names.map(id)),
      selectors: fc.subarray(['n:1', 'n:2', 'n:3'], { minLength: 1 }),
    })
    const step = fc.oneof(
      anyEntry.map((fields) => ({ put: entry(fields) })),
      fc.constantFrom('1', '2', '3').map((gone) => ({ gone })),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), fc.subarray(['n:1', 'n:2', 'n:3']), (steps, selectors) => {
        const index = new EntryIndex(here)
        const truth = new Map<string, RegistrationEntry>()
        for (const one of steps) {
          if ('put' in one) truth.set(one.put.id, one.put)
          else truth.delete(one.gone)
          index.apply({ whole: false, changed: 'put' in one ? [one.put] : [], removed: 'put' in one ? [] : [one.gone] })
        }
        expect(entitled(index, selectors)).toEqual(walk([...truth.values()], selectors))
      }),
    )
  })
})

/** The definition, without any cleverness. */
function walk(entries: readonly RegistrationEntry[], selectors: readonly string[]): string[] {
  const seen = selectors.map(parseSelector)
  const parents = new Set<string>([agent])
  for (const one of entries) if (one.parentId === server && satisfies(seen, one.selectors)) parents.add(one.spiffeId)
  for (let before = -1; before !== parents.size;) {
    before = parents.size
    for (const one of entries) if (parents.has(one.parentId)) parents.add(one.spiffeId)
  }
  return entries
    .filter((one) => parents.has(one.parentId))
    .map((one) => one.id)
    .sort()
}
