import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Budget, BudgetExhausted } from '../../../src/policy/analysis/budget.ts'
import * as domains from '../../../src/policy/analysis/domains.ts'
import { partitionAddresses, partitionNumbers } from '../../../src/policy/analysis/partition.ts'
import { anyText, classesOf, literal, matchedBy, regular, sequence, type Regular } from '../../../src/policy/analysis/regular.ts'
import { blockHolds, parseAddress, parseAddressBlock, type AddressBlock } from '../../../src/policy/matching.ts'
import { foldPath, isCanonicalPath, normalizePath, pathNormalizations } from '../../../src/policy/normalize.ts'
import { parseSpiffeId } from '../../../src/spiffe/id.ts'

/** Every text of these characters up to a length. */
function* textsOf(characters: string, most: number): Iterable<string> {
  yield ''
  if (most === 0) return
  for (const rest of textsOf(characters, most - 1)) for (const one of characters) if (rest.length === most - 1) yield rest + one
  if (most > 1) for (const text of textsOf(characters, most - 1)) if (text !== '' && text.length < most) yield text
}

const ab = { must: [regular('[ab]*')], mustNot: [] }
const pieces = fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 3 })
const patterns = fc.array(
  fc.oneof(
    pieces.map((text): { source: string; pattern: Regular } => ({ source: `^${text}$`, pattern: literal(text) })),
    pieces.map((text) => ({ source: `^${text}`, pattern: sequence(literal(text), anyText) })),
    pieces.map((text) => ({ source: `${text}$`, pattern: sequence(anyText, literal(text)) })),
    fc.constantFrom('(?:ab)*', 'a+b?', '(?:a|ba)*', '[^a]+', 'a(?:b|)a').map((source) => ({ source: `^(?:${source})$`, pattern: regular(source) })),
  ),
  { maxLength: 6 },
) // prettier-ignore

describe('classes of texts', () => {
  test('are all there, and each has a text that is in it: brute force over all short texts finds no other', () => {
    const texts = [...new Set(textsOf('ab', 7))]
    fc.assert(
      fc.property(patterns, (list) => {
        const classes = classesOf(ab, list.map(({ pattern }) => pattern), new Budget())
        const truth = (text: string) => list.flatMap(({ source }, index) => (new RegExp(source).test(text) ? [index] : [])).join()
        expect(classes.map(({ matched }) => matched.join())).toEqual(classes.map(({ witness }) => truth(witness)))
        expect(new Set(texts.map(truth)).size).toBe(new Set(classes.map(({ matched }) => matched.join())).size)
        const match = matchedBy(ab, list.map(({ pattern }) => pattern))
        for (const text of texts.slice(0, 40)) expect(match(text)?.join()).toBe(truth(text))
      }),
      { numRuns: 100 },
    ) // prettier-ignore
  })

  test('that would cost too much are refused, not forgotten', () => {
    expect(() => classesOf(domains.spiffeIds, [literal('spiffe://a/b')], new Budget({ nodes: 2, steps: 1e6 }))).toThrow(BudgetExhausted)
  })

  test('of an expression that is not read are refused', () => {
    for (const source of ['a{2}', '(?i:a)', '^a', 'a$', '\\d', '[a', '(a', 'a)'])
      expect(() => regular(source), source).toThrow('is not an expression that analysis reads')
  })
})

describe('the domain of paths', () => {
  const raw = fc.string({ unit: fc.constantFrom('/', 'a', '.', '%', '2', 'F', 'f', 'e', '5', 'C', '4', '1', '\\', ';', '<', 'B'), maxLength: 9 }).map((text) => `/${text}`) // prettier-ignore

  test.each(pathNormalizations)('after `%s` is what the normalisation makes of any path', (mode) => {
    const inDomain = matchedBy(domains.paths('istio', mode), [])
    fc.assert(
      fc.property(raw, (path) => {
        const normal = normalizePath(path, mode)
        if (normal !== undefined) expect({ normal, is: inDomain(normal) !== undefined }).toEqual({ normal, is: true })
      }),
      { numRuns: 2000 },
    )
  })

  test('in strict mode is exactly the paths that are canonical and folded (R-7)', () => {
    const inDomain = matchedBy(domains.paths('strict', 'decode-and-merge-slashes'), [])
    const spelt = (path: string) =>
      normalizePath(path, 'decode-and-merge-slashes') === path && isCanonicalPath(path) && foldPath(path) === path
    const escapes = fc.array(fc.constantFrom('/', 'a', '.', '%25', '%2', '%C3', '%A4', '%E2', '%82', '%AC', '%F0', '%9F', '%98', '%80', '%20', '%2f', '%c3', '%41', '%7B', ';', 'AF', '%ED', '%A0', '[', '@'), { maxLength: 7 }).map((parts) => `/${parts.join('')}`) // prettier-ignore
    fc.assert(
      fc.property(fc.oneof(raw, escapes), (path) => {
        expect({ path, is: inDomain(path) !== undefined }).toEqual({ path, is: spelt(path) })
      }),
      { numRuns: 5000 },
    )
  })
})

test('the domain of identities is what a SPIFFE ID is (ID-8)', () => {
  const inDomain = matchedBy(domains.spiffeIds, [])
  const isId = (text: string) => {
    try {
      return parseSpiffeId(text) === text
    } catch {
      return false
    }
  }
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom('/', 'a', '.', 'A', '-', ':', '%'), maxLength: 8 }), (text) => {
      expect({ text, is: inDomain(`spiffe://${text}`) !== undefined }).toEqual({ text, is: isId(`spiffe://${text}`) })
    }),
    { numRuns: 3000 },
  )
})

test('classes of addresses and numbers tell apart whatever their blocks and ranges do', () => {
  const block = fc.constantFrom('10.0.0.0/8', '10.1.0.0/16', '10.1.2.3', '0.0.0.0/0', '::/0', '2001:db8::/32', '::1', '::ffff:10.0.0.0/104', '255.255.255.255').map((text) => parseAddressBlock(text) as AddressBlock) // prettier-ignore
  const address = fc.constantFrom('10.1.2.3', '10.1.2.4', '10.2.0.0', '11.0.0.0', '::1', '::2', '2001:db8::9', '::ffff:10.9.9.9', '255.255.255.255', '0.0.0.0', 'ffff::') // prettier-ignore
  fc.assert(
    fc.property(fc.array(block, { maxLength: 6 }), address, (blocks, text) => {
      const truth = (one: string) => blocks.flatMap((each, index) => (blockHolds(each, parseAddress(one)!) ? [index] : [])).join()
      const classes = partitionAddresses(blocks)
      expect(classes.map(({ witness }) => truth(witness))).toEqual(classes.map(({ matched }) => matched.join()))
      expect(classes.map(({ matched }) => matched.join())).toContain(truth(text))
    }),
  )
  const classes = partitionNumbers({ from: 0, to: 65_535 }, [{ from: 80, to: 80 }, { from: 0, to: 1023 }, { from: 65_535, to: 65_535 }], [8080]) // prettier-ignore
  expect(classes.map(({ matched, witness }) => [matched.join(), witness])).toEqual([['', 8080], ['1', 0], ['0,1', 80], ['2', 65_535]]) // prettier-ignore
})
