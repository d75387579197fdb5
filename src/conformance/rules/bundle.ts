/** Trust Domain and Bundle: spiffe:standards/SPIFFE_Trust_Domain_and_Bundle.md. */
import { isObject, type Json, type JsonDocument } from '../documents.ts'
import { entries, of } from '../judging.ts'
import { unseen } from '../reasons.ts'
import { finding, type Finding, type Rule, section, told } from '../rule.ts'

const uses = ['x509-svid', 'jwt-svid', 'wit-svid']
/** RFC 7517 section 4 and RFC 7518 section 6, the parts of public keys. */
const defined = new Set(['kty', 'use', 'kid', 'alg', 'crv', 'x', 'y', 'n', 'e', 'x5c', 'key_ops', 'x5u', 'x5t', 'x5t#S256'])

export const bundleRules: readonly Rule[] = section({
  'B-1': {
    level: 'must',
    says: 'a bundle is a JWK set',
    judges: {
      bundle: ({ value: { keys } }) => (keys === undefined || isListOfObjects(keys) ? undefined : finding('a list of keys', told(keys))),
    },
    unseen: unseen.documents,
  },
  'B-2': {
    level: 'should',
    says: 'a bundle has a sequence that grows with every change',
    judges: { bundle: ({ value: { spiffe_sequence: sequence } }) => notSequence(sequence) },
    unseen: unseen.documents,
  },
  'B-3': {
    level: 'should',
    says: 'a bundle tells in whole seconds when to look again',
    judges: {
      bundle: ({ value: { spiffe_refresh_hint: hint } }) => {
        if (hint === undefined) return finding('`spiffe_refresh_hint`', 'none')
        return Number.isSafeInteger(hint) && Number(hint) >= 0 ? undefined : finding('a whole number of seconds', told(hint))
      },
    },
    unseen: unseen.documents,
  },
  'B-4': {
    level: 'must',
    says: 'a bundle has `keys`, be it an empty list',
    judges: { bundle: ({ value: { keys } }) => (keys === undefined ? finding('`keys`', 'none') : undefined) },
    unseen: unseen.documents,
  },
  'B-5': { level: 'must', says: 'a consumer passes over keys of a type or use that it does not know', unseen: unseen.consumers },
  'B-6': { level: 'must', says: 'an empty bundle trusts nothing', unseen: unseen.consumers },
  'B-7': {
    level: 'should',
    says: 'a key has no parameters that are not defined, and never a private part',
    judges: { bundle: entries(() => true, undefinedParameter), keySet: entries(() => true, undefinedParameter) },
  },
  'B-8': {
    level: 'must',
    says: 'every key has a type',
    judges: {
      bundle: entries(
        () => true,
        ({ kty }) => (typeof kty === 'string' ? undefined : finding('`kty`', told(kty))),
      ),
    },
    unseen: unseen.documents,
  },
  'B-9': {
    level: 'must',
    says: 'every key has a use, written exactly as defined',
    judges: {
      bundle: entries(
        (key) => !('x5c' in key),
        ({ use }) => {
          if (use === undefined) return finding('`use`', 'none')
          const misspelled = typeof use === 'string' && !uses.includes(use) && uses.includes(use.toLowerCase())
          return misspelled ? finding(`\`${use.toLowerCase()}\``, `\`${use}\``) : undefined
        },
      ),
    },
    unseen: unseen.documents,
  },
  'B-10': {
    level: 'must',
    says: 'a bundle map has `trust_domains`, keyed by their names',
    judges: {
      map: (document) => {
        const domains = domainsIn(document)
        if (!domains) return finding('an object `trust_domains`', 'none')
        return of(Object.keys(domains), (name) =>
          /^[a-z0-9._-]{1,255}$/.test(name) ? undefined : finding('the name of a trust domain', `\`${name}\``),
        )
      },
    },
    unseen: unseen.documents,
  },
  // A document that breaks it is not read: whoever reads it says so.
  'B-11': { level: 'must', says: 'no name stands twice in one object of a document', unseen: unseen.documents },
  'B-12': {
    level: 'should',
    says: 'bundles inside of a map have no refresh hint',
    judges: {
      map: (document) =>
        of(Object.entries(domainsIn(document) ?? {}), ([name, bundle]) =>
          isObject(bundle) && bundle['spiffe_refresh_hint'] !== undefined
            ? finding('no `spiffe_refresh_hint`', `one in the bundle of \`${name}\``)
            : undefined,
        ),
    },
    unseen: unseen.documents,
  },
  'B-13': { level: 'must', says: 'a bundle map is taken as a whole or not at all', unseen: unseen.consumers },
  'B-14': { level: 'derived', says: 'without a refresh hint one looks again after five minutes', unseen: unseen.consumers },
})

/** The bundles of a map by their trust domain. */
export function domainsIn({ value: { trust_domains: domains } }: JsonDocument): Json | undefined {
  return isObject(domains) ? domains : undefined
}

function notSequence(sequence: unknown): Finding | undefined {
  if (sequence === undefined) return finding('`spiffe_sequence`', 'none')
  const whole = typeof sequence === 'bigint' || (typeof sequence === 'number' && Number.isInteger(sequence)) ? BigInt(sequence) : -1n
  return whole >= 0n && whole < 2n ** 64n ? undefined : finding('a whole number of 64 bits', told(sequence))
}

function undefinedParameter(key: Json): Finding | undefined {
  const strange = Object.keys(key).find((name) => !defined.has(name))
  if (strange === undefined) return undefined
  return finding(
    'the parameters of a public key',
    privateParts.has(strange) ? `\`${strange}\`, a part of the private key` : `\`${strange}\``,
  )
}

const isListOfObjects = (value: unknown): boolean => Array.isArray(value) && value.every(isObject)
const privateParts = new Set(['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'])
