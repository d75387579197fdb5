import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { checkEntry, isReserved, type EntryDraft } from '../../src/registry/entry.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseSelector } from '../../src/spiffe/selector.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { entry } from '../store/sample.ts'

const here = parseTrustDomain('example.org')
const reasonOf = (draft: EntryDraft): string | undefined => {
  try {
    checkEntry(draft, here)
    return undefined
  } catch (error) {
    return (error as { reason: string }).reason
  }
}

describe('an entry', () => {
  test.each<[string, string, Partial<EntryDraft>]>([
    ['without selectors', 'entry.no-selectors', { selectors: [] }],
    ['for an identity of another trust domain', 'entry.foreign-spiffe-id', { spiffeId: parseSpiffeId('spiffe://other.org/web') }],
    ['for the trust domain itself', 'entry.no-path', { spiffeId: parseSpiffeId('spiffe://example.org') }],
    ['for the server', 'entry.reserved-spiffe-id', { spiffeId: parseSpiffeId('spiffe://example.org/spire/server') }],
    ['for an agent', 'entry.reserved-spiffe-id', { spiffeId: parseSpiffeId('spiffe://example.org/spire/agent/x/y') }],
    ['for the reserved root', 'entry.reserved-spiffe-id', { spiffeId: parseSpiffeId('spiffe://example.org/spire') }],
    ['under a parent of another trust domain', 'entry.foreign-parent', { parentId: parseSpiffeId('spiffe://other.org/node') }],
    ['under the trust domain itself', 'entry.no-path', { parentId: parseSpiffeId('spiffe://example.org') }],
    ['with a lifetime below zero', 'entry.ttl-negative', { x509SvidTtl: -1 }],
    ['with a JWT lifetime below zero', 'entry.ttl-negative', { jwtSvidTtl: -1 }],
    ['with a hint of 1025 characters', 'entry.hint-too-long', { hint: 'h'.repeat(1025) }],
    ['with an empty DNS name', 'entry.dns-name-malformed', { dnsNames: [''] }],
    ['with a wildcard inside a DNS name', 'entry.dns-name-malformed', { dnsNames: ['a.*.example.org'] }],
    [
      'with a common name that may be taken for a host',
      'entry.common-name',
      { subject: { commonName: 'bank' }, dnsNames: ['web.example.org'] },
    ],
    ['with a space in a DNS name', 'entry.dns-name-malformed', { dnsNames: ['a b.example.org'] }],
    ['with a DNS name of 254 characters', 'entry.dns-name-malformed', { dnsNames: [`${'a.'.repeat(126)}aa`] }],
    ['with an id of 256 characters', 'entry.id-malformed', { id: 'i'.repeat(256) }],
    ['with a space in its id', 'entry.id-malformed', { id: 'a b' }],
    ['with 257 selectors', 'entry.too-many', { selectors: Array.from({ length: 257 }, (_, i) => parseSelector(`x:${i}`)) }],
  ])('%s is refused', (_, reason, fields) => {
    expect(reasonOf({ ...entry(), ...fields })).toBe(reason)
  })

  test('its refusal names the field, what was found and what was expected', () => {
    expect(() => checkEntry({ ...entry(), spiffeId: parseSpiffeId('spiffe://other.org/web') }, here)).toThrow(
      'field `spiffe_id` is `spiffe://other.org/web`: expected an ID of the trust domain `example.org`',
    )
  })

  test('a hint of 1024 characters, a wildcard name and 256 selectors are fine', () => {
    const selectors = Array.from({ length: 256 }, (_, i) => parseSelector(`x:${i}`))
    expect(reasonOf({ ...entry(), hint: 'h'.repeat(1024), dnsNames: ['*.example.org', 'localhost'], selectors })).toBeUndefined()
  })

  test('a workload beside the reserved IDs is no part of them', () => {
    expect(isReserved(parseSpiffeId('spiffe://example.org/spire-controller-manager/x'))).toBe(false)
  })

  test('selectors and trust domains are stored sorted and once, whatever the order they came in', () => {
    const list = fc.array(fc.constantFrom('x:1', 'x:2', 'a:9', 'b:0'), { minLength: 1, maxLength: 9 })
    fc.assert(
      fc.property(list, (selectors) => {
        const checked = checkEntry({ ...entry(), selectors: selectors.map(parseSelector) }, here)
        expect(checked.selectors.map(({ type, value }) => `${type}:${value}`)).toEqual([...new Set(selectors)].sort())
      }),
    )
    const federated = ['b.org', 'a.org', 'b.org'].map(parseTrustDomain)
    expect(checkEntry({ ...entry(), federatesWith: federated }, here).federatesWith).toEqual(['a.org', 'b.org'])
  })
})
