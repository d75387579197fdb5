/** The judge of documents and our own validators, held against each other: what one refuses the other refuses, by the same rule. */
import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { readToken } from '../../src/conformance/documents.ts'
import { inspect } from '../../src/conformance/inspect/inspect.ts'
import { flawsOf } from '../../src/conformance/inspect/inspection.ts'
import { decode } from '../../src/conformance/wire.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { collect } from '../../src/spiffe/flaws.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { jwtSvidFlaws } from '../../src/spiffe/jwt-svid.ts'
import { brokenRules } from '../../src/spiffe/rules.ts'
import { witSvidFlaws } from '../../src/spiffe/wit-svid.ts'
import { x509SvidFlaws } from '../../src/spiffe/x509-svid.ts'
import { TestCa, type Wishes } from '../support/test-ca.ts'

const at = 1_767_225_600_000
const id = 'spiffe://example.org/web'
let ca: TestCa

beforeAll(async () => {
  ca = await TestCa.create({ at })
})

/** What each of the two would name; where a rule is only a `should`, a validator says nothing. */
interface Named {
  readonly judge: readonly string[]
  readonly validator: readonly (readonly string[])[]
}

function demandAgreement({ judge, validator }: Named): void {
  // Whatever the validator refuses has a name that the judge gives as well.
  for (const rules of validator) expect([rules, judge.some((rule) => rules.includes(rule))]).toEqual([rules, true])
  // Whatever the judge calls a must is refused.
  for (const rule of judge) expect([rule, validator.some((rules) => rules.includes(rule))]).toEqual([rule, true])
}

const musts = (flaws: ReturnType<typeof flawsOf>) => flaws.filter(({ level }) => level !== 'should').map(({ rule }) => rule)
const rulesOf = (refusals: readonly Failure[]) => refusals.map((one) => brokenRules(one))

describe('judge and validator agree on', () => {
  const uris = fc.subarray(
    [id, 'spiffe://example.org', 'https://example.org/web', 'spiffe://EXAMPLE.org/web', 'spiffe://example.org/a//b'],
    {
      maxLength: 2,
    },
  )
  const usages = fc.subarray(['digitalSignature', 'keyEncipherment', 'keyCertSign', 'cRLSign'] as const)
  const purposes = fc.subarray(['serverAuth', 'clientAuth'] as const)
  const wishes: fc.Arbitrary<Wishes> = fc.record({
    uris,
    keyUsage: usages,
    extKeyUsage: purposes,
    ca: fc.constantFrom(false as const, {}),
    dnsNames: fc.subarray(['a.example.org']),
  })

  test('X-1 X-4 X-12 X-15 X-17 X-18 X-20 ID-1 ID-8 ID-13 leaves of every kind', async () => {
    await fc.assert(
      fc.asyncProperty(wishes, async (wished) => {
        const { certificate } = await ca.leaf(wished)
        // With several names, or none, nobody asks further which ID it is.
        const names = certificate.subjectAltName?.uris ?? []
        const judged = [...flawsOf('leaf', certificate), ...(names.length === 1 ? flawsOf('id', names[0]!) : [])]
        const judge = musts(judged).filter((rule) => names.length === 1 || rule !== 'X-4')
        demandAgreement({ judge, validator: rulesOf(collect(x509SvidFlaws(certificate))) })
      }),
      { numRuns: 200 },
    )
  })

  const claim = (...values: unknown[]) => fc.constantFrom(undefined, ...values)
  const header = fc.record({
    alg: claim('ES256', 'none', 'HS256', 'EdDSA', 7),
    kid: claim('k', 7),
    typ: claim('JWT', 'JOSE', 'wit+jwt', 7),
    jku: claim('x'),
  })
  const claims = fc.record({
    sub: claim(id, 'web', 7, 'spiffe://example.org/a/'),
    aud: claim('db', ['db'], [], [7], 7),
    exp: claim(at / 1000 + 60, at / 1000 - 60, 'tomorrow'),
  })
  const token = (one: object, two: object) =>
    [one, two]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .concat('AAAA')
      .join('.')

  test('J-4 J-5 J-7 J-8 J-9 J-11 J-12 tokens of every kind', () => {
    fc.assert(
      fc.property(header, claims, (head, body) => {
        const text = token(head, body)
        const judge = new Set(musts(flawsOf('jwt', readToken(text, at))))
        const validator = rulesOf(jwtSvidFlaws(text, { at }))
        // The name of a key has no rule for JWT-SVIDs, and who writes the time as a text breaks one of two.
        const refused = validator.filter((rules) => !rules.includes('J-6'))
        if (body.sub === 'spiffe://example.org/a/') judge.add('J-8')
        if (typeof body.exp === 'string') judge.add('J-11')
        expect(judge.size > 0).toBe(refused.length > 0)
        for (const rules of refused) expect([rules, rules.some((rule) => judge.has(rule))]).toEqual([rules, true])
      }),
      { numRuns: 1000 },
    )
  })

  test('W-1 W-2 W-3 W-5 W-6 W-9 W-13 WIT-SVIDs of every kind', () => {
    fc.assert(
      fc.property(header, claims, (head, body) => {
        const text = token(head, body)
        const judge = new Set(musts(flawsOf('wit', readToken(text, at))))
        if (body.sub === 'spiffe://example.org/a/') judge.add('W-5')
        for (const rules of rulesOf(witSvidFlaws(text, at))) expect([rules, rules.some((rule) => judge.has(rule))]).toEqual([rules, true])
      }),
      { numRuns: 500 },
    )
  })

  test('T-1 texts that are SPIFFE IDs, and texts that are not', () => {
    const part = fc.string({
      unit: fc.constantFrom('a', 'Z', '0', '.', '-', '_', '/', ':', '@', '%', '?', '#', ' ', 'é', '\u0000'),
      maxLength: 8,
    })
    fc.assert(
      fc.property(fc.constantFrom('spiffe://', 'SPIFFE://', 'http://', ''), part, part, (scheme, host, path) => {
        const text = `${scheme}${host}/${path}`
        expect([text, flawsOf('id', text).length === 0]).toEqual([text, isId(text)])
      }),
      { numRuns: 5000 },
    )
  })
})

describe('whatever it is given', () => {
  const looking = { at, audience: 'db' }

  test('R-28 inspect finds documents, or refuses with a Failure', async () => {
    const { certificate, keyPem } = await ca.leaf({ uris: [id] })
    const seeds = [
      certificate.raw,
      Buffer.from(keyPem),
      Buffer.from('{"keys":[{"use":"x509-svid","kty":"EC","x5c":["AAAA"]}],"spiffe_sequence":1}'),
    ]
    const mutated = fc
      .tuple(fc.constantFrom(...seeds), fc.array(fc.tuple(fc.nat(2000), fc.nat(255)), { maxLength: 4 }))
      .map(([seed, changes]) => {
        const copy = Uint8Array.from(seed)
        for (const [place, byte] of changes) copy[place % copy.length] = byte
        return copy
      })
    const inputs = fc.oneof(
      mutated,
      fc.uint8Array({ maxLength: 200 }),
      fc.string({ maxLength: 200 }).map((text) => Buffer.from(text)),
      fc.json().map((text) => Buffer.from(text)),
    )
    await fc.assert(
      fc.asyncProperty(inputs, async (input) => {
        const found = await inspect(input, undefined, looking).catch((error: unknown) => error)
        expect(found instanceof Failure ? found.category : Array.isArray(found)).not.toBe(false)
        if (found instanceof Failure) expect(found.category).toBe('invalid_argument')
      }),
      { numRuns: 500 },
    )
  })

  test('R-28 a message is read, or refused with a Failure', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        try {
          decode(bytes)
        } catch (error) {
          expect(error).toMatchObject({ reason: 'conformance.malformed' })
        }
      }),
      { numRuns: 5000 },
    )
  })
})

function isId(text: string): boolean {
  try {
    parseSpiffeId(text)
    return true
  } catch {
    return false
  }
}
