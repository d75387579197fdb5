import { parseSpiffeId, pathOf, spiffeId as idOf, trustDomainOf } from '../src/spiffe/id.ts'
import { bytes, promise, type Target, text } from './target.ts'

export const spiffeId: Target = {
  name: 'spiffe-id',
  about: 'SPIFFE IDs',
  words: ['spiffe://', '..', '/./', '//', '%2e', '%2F', ':443', '@', '?', '#', '\u0430', 'A'],
  seeds: async () =>
    ['spiffe://example.org', 'spiffe://example.org/ns/shop/sa/web', 'spiffe://10.0.0.1/.a/b..c/_-', `spiffe://a/${'b'.repeat(2000)}`].map(
      bytes,
    ),
  feed(input) {
    const written = text(input)
    const id = parseSpiffeId(written)
    promise(id === written, 'an ID is what was written')
    promise(idOf(trustDomainOf(id), pathOf(id)) === id, 'the parts of an ID make it again')
    promise(/^[\x21-\x7e]{1,2048}$/.test(id), 'an ID holds visible ASCII only')
  },
}
