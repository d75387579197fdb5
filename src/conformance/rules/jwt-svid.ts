/** JWT-SVID: spiffe:standards/JWT-SVID.md. */
import type { Token } from '../documents.ts'
import { unseen } from '../reasons.ts'
import { finding, type Finding, type Rule, section, told } from '../rule.ts'
import {
  algorithms,
  asJsonSerialization,
  encrypted,
  signedWithEd25519,
  signedWithPublicKey,
  unsigned,
  withKeyInHeader,
  withUnprotectedHeader,
} from '../vectors/tokens.ts'
import { isEnded, type WorkloadApi } from '../workload-api.ts'
import { keysIn } from '../documents.ts'
import { entries, of } from '../judging.ts'

export const jwtSvidRules: readonly Rule[] = section({
  'J-1': {
    level: 'must',
    says: 'the JSON serialization is refused',
    asks: refusing(async (api) => asJsonSerialization(await api.realToken())),
  },
  'J-2': {
    level: 'must',
    says: 'a token is in compact serialization, and nothing in its header is unprotected',
    judges: { jwt: ({ text, header }) => (header ? undefined : finding('three parts of base64url with JSON in them', text.slice(0, 40))) },
    asks: refusing(async (api) => [withUnprotectedHeader(await api.realToken())]),
  },
  'J-3': { level: 'must', says: 'an encrypted token is refused', asks: refusing(async (api) => [encrypted(await api.realToken())]) },
  'J-4': {
    level: 'must',
    says: 'a header says `alg`, `kid` and `typ` and nothing else: no key, and no place to find one',
    judges: {
      jwt: ({ header = {} }) =>
        of(Object.keys(header), (name) =>
          ['alg', 'kid', 'typ'].includes(name) ? undefined : finding('only `alg`, `kid` and `typ`', `\`${name}\``),
        ),
    },
    asks: refusing(async (api) => [withKeyInHeader((await api.realToken()).claims ?? {})]),
  },
  'J-5': {
    level: 'must',
    says: 'the algorithm is one of the nine, and every other is refused',
    judges: {
      jwt: ({ header }) =>
        header && !algorithms.has(told(header['alg'])) ? finding('one of the nine algorithms', `\`${told(header['alg'])}\``) : undefined,
    },
    asks: refusing(async (api) => {
      const token = await api.realToken()
      const key = (await api.collected()).keySet.flatMap(keysIn).find((one) => one['kid'] === token.header?.['kid'])
      return [unsigned(token), ...(key ? signedWithPublicKey(token, key) : []), signedWithEd25519(token.claims ?? {})]
    }),
  },
  'J-6': { level: 'may', says: 'a token may be without a key id', unseen: unseen.signedByAuthority },
  'J-7': {
    level: 'must',
    says: 'the type, if there is one, is `JWT` or `JOSE`',
    judges: {
      jwt: ({ header = {} }) =>
        [undefined, 'JWT', 'JOSE'].includes(header['typ'] as string | undefined)
          ? undefined
          : finding('`JWT` or `JOSE`', `\`${told(header['typ'])}\``),
    },
  },
  'J-8': { level: 'must', says: 'the subject is a SPIFFE ID', judges: { jwt: subjectIsId } },
  'J-9': {
    level: 'must',
    says: 'a token has an audience, and whoever is not in it refuses the token',
    judges: { jwt: ({ claims }) => (claims && audienceOf(claims['aud']).length === 0 ? finding('an audience', 'none') : undefined) },
    asks: async (api) => {
      const answer = await api.validate((await api.realToken()).text, otherAudience)
      return isEnded(answer)
        ? undefined
        : finding('a refusal for an audience that the token does not name', `it is valid for \`${answer.spiffeId}\``)
    },
  },
  'J-10': {
    level: 'should',
    says: 'a token is for nobody but the audience that was asked for',
    judges: {
      jwt: ({ claims, audience }) => {
        const strange = audience && audienceOf(claims?.['aud']).find((one) => !audience.includes(one))
        return strange === undefined ? undefined : finding('only the audience that was asked for', strange)
      },
    },
  },
  'J-11': { level: 'must', says: 'a token has an expiry', judges: { jwt: hasExpiry } },
  'J-12': {
    level: 'must',
    says: '`aud` and `exp` are written and read as RFC 7519 says',
    judges: {
      jwt: ({ claims, at }) => {
        if (!claims) return undefined
        const { aud, exp } = claims
        if (aud !== undefined && audienceOf(aud).length !== [aud].flat().length)
          return finding('`aud` is a text or a list of texts', JSON.stringify(aud))
        return notExpired(exp, at)
      },
    },
  },
  'J-13': { level: 'should', says: 'over HTTP a token is shown as `Authorization: Bearer`', unseen: unseen.presentation },
  'J-14': { level: 'should', says: 'over gRPC a token is shown as metadata `authorization: Bearer`', unseen: unseen.presentation },
  'J-15': {
    level: 'must',
    says: 'the key of a JWT authority has the use `jwt-svid`',
    judges: {
      bundle: entries(
        (key) => !('x5c' in key),
        ({ use }) =>
          ['sig', 'enc', 'JWT-SVID', 'jwt'].includes(told(use)) ? finding('`use` is `jwt-svid`', `\`${told(use)}\``) : undefined,
      ),
    },
    unseen: unseen.documents,
  },
  'J-16': {
    level: 'must',
    says: 'the key of a JWT authority has a key id',
    judges: { bundle: entries(({ use }) => use === 'jwt-svid', hasKeyId), keySet: entries(() => true, hasKeyId) },
  },
  'J-17': { level: 'must', says: 'a consumer takes only the keys with the use `jwt-svid`', unseen: unseen.consumers },
  'J-18': {
    level: 'derived',
    says: 'a token is valid more than once: nobody has to track its id',
    asks: async (api) => {
      const { text } = await api.freshToken()
      const [first, second] = [await api.validate(text), await api.validate(text)]
      return !isEnded(first) && isEnded(second) ? finding('valid as often as it is shown', 'refused at the second time') : undefined
    },
  },
  'J-19': {
    level: 'derived',
    says: 'private claims of a foreign trust domain decide nothing',
    unseen: 'it takes a token of a foreign trust domain',
  },
})

/** Every one of the tokens is refused. */
function refusing(tokens: (api: WorkloadApi) => Promise<readonly string[]>): NonNullable<Rule['asks']> {
  return async (api) => {
    for (const token of await tokens(api)) {
      const answer = await api.validate(token)
      if (!isEnded(answer)) return finding(`a refusal of \`${token.slice(0, 60)}…\``, `it is valid for \`${answer.spiffeId}\``)
    }
    return undefined
  }
}

export function subjectIsId({ claims }: Token): Finding | undefined {
  if (!claims || /^spiffe:\/\//i.test(told(claims['sub']))) return undefined
  return finding('`sub` is a SPIFFE ID', claims['sub'] === undefined ? 'no `sub`' : told(claims['sub']))
}

export function hasExpiry({ claims }: Token): Finding | undefined {
  return claims && claims['exp'] === undefined ? finding('`exp`', 'none') : undefined
}

/** @param exp is left out where it is missing: that is another rule's business */
export function notExpired(exp: unknown, at: number): Finding | undefined {
  if (exp === undefined) return undefined
  if (typeof exp !== 'number' || !Number.isFinite(exp)) return finding('`exp` is a number of seconds', JSON.stringify(exp))
  return exp * 1000 > at ? undefined : finding('an expiry in the future', `\`exp\` ${Math.round(at / 1000 - exp)} seconds ago`)
}

export function hasKeyId(key: Readonly<Record<string, unknown>>): Finding | undefined {
  return typeof key['kid'] === 'string' && key['kid'] !== ''
    ? undefined
    : finding('a `kid`', key['kid'] === undefined ? 'none' : JSON.stringify(key['kid']))
}

/** The texts of an audience. */
export const audienceOf = (aud: unknown): string[] => [aud].flat().filter((one): one is string => typeof one === 'string' && one !== '')

const otherAudience = 'vidimus-conformance-somebody-else'
