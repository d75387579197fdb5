/** WIT-SVID, incubating: spiffe:standards/WIT-SVID.md. */
import { isObject, type Json, type JsonDocument, keysIn } from '../documents.ts'
import { entries, of } from '../judging.ts'
import { unseen } from '../reasons.ts'
import { finding, type Finding, type Rule, section, told } from '../rule.ts'
import { algorithms } from '../vectors/tokens.ts'
import { isEnded, keysOf, tokensIn } from '../workload-api.ts'
import { hasExpiry, hasKeyId, notExpired, subjectIsId } from './jwt-svid.ts'

export const witSvidRules: readonly Rule[] = section({
  'W-1': { level: 'must', says: 'the header has a key id', judges: { wit: ({ header }) => header && hasKeyId(header) } },
  'W-2': {
    level: 'must',
    says: 'the type is `wit+jwt`',
    judges: { wit: ({ header }) => (header && header['typ'] !== 'wit+jwt' ? finding('`wit+jwt`', told(header['typ'])) : undefined) },
  },
  'W-3': {
    level: 'must',
    says: 'the algorithm is one of the nine',
    judges: {
      wit: ({ header }) =>
        header && !algorithms.has(told(header['alg'])) ? finding('one of the nine algorithms', told(header['alg'])) : undefined,
    },
  },
  'W-4': {
    level: 'should',
    says: 'the header says `alg`, `kid` and `typ` and nothing else',
    judges: {
      wit: ({ header = {} }) =>
        of(Object.keys(header), (name) =>
          ['alg', 'kid', 'typ'].includes(name) ? undefined : finding('only `alg`, `kid` and `typ`', `\`${name}\``),
        ),
    },
  },
  'W-5': { level: 'must', says: 'the subject is a SPIFFE ID', judges: { wit: subjectIsId } },
  'W-6': {
    level: 'must',
    says: '`cnf` confirms a key',
    judges: {
      wit: ({ claims }) =>
        claims && !confirmed(claims)
          ? finding('`cnf` with a `jwk`', claims['cnf'] === undefined ? 'no `cnf`' : 'one without a `jwk`')
          : undefined,
    },
  },
  'W-7': {
    level: 'must',
    says: 'the confirmed key names its algorithm, one of the nine',
    judges: {
      wit: ({ claims }) => {
        const key = claims && confirmed(claims)
        return key && !algorithms.has(told(key['alg'])) ? finding('`cnf.jwk.alg` is one of the nine', told(key['alg'])) : undefined
      },
    },
  },
  'W-8': {
    level: 'may',
    says: 'a token id, where there is one, is nobody else’s',
    asks: async (api) => {
      const [first, second] = [await api.tokens('wit'), tokensIn(await api.rawAgain('wit'), 'wit', api.clock.now(), api.audience)]
      const known = new Map(first.map(({ token }) => [token.claims?.['jti'], token.text]))
      const twice = second.find(
        ({ token }) =>
          token.claims?.['jti'] !== undefined && known.has(token.claims['jti']) && known.get(token.claims['jti']) !== token.text,
      )
      return twice && finding('a `jti` for each token', `\`${told(twice.token.claims?.['jti'])}\` in two`)
    },
  },
  'W-9': {
    level: 'must',
    says: 'a token has an expiry, in the future',
    judges: { wit: (token) => hasExpiry(token) ?? notExpired(token.claims?.['exp'], token.at) },
  },
  'W-10': {
    level: 'may',
    says: 'a token is not shown before its `nbf`',
    judges: {
      wit: ({ claims, at }) =>
        typeof claims?.['nbf'] === 'number' && claims['nbf'] * 1000 > at + 60_000
          ? finding('an `nbf` that has passed', `one in ${Math.round(claims['nbf'] - at / 1000)} seconds`)
          : undefined,
    },
  },
  'W-11': { level: 'may', says: '`iat` is not the moment from which a token is valid', unseen: unseen.signedByAuthority },
  'W-12': {
    level: 'may',
    says: 'the issuer is nothing that OIDC Discovery could be used with',
    judges: {
      wit: ({ claims }) =>
        /^https:/i.test(told(claims?.['iss'] ?? '')) ? finding('an `iss` that is no https URL', told(claims?.['iss'])) : undefined,
    },
  },
  'W-13': {
    level: 'must',
    says: 'there is no audience',
    judges: { wit: ({ claims }) => (claims && 'aud' in claims ? finding('no `aud`', JSON.stringify(claims['aud'])) : undefined) },
  },
  'W-14': { level: 'should', says: 'a validator passes over claims that it does not know', unseen: unseen.signedByAuthority },
  'W-15': {
    level: 'must',
    says: 'an issuer sets `alg`, `typ`, `kid`, `sub`, `exp` and `cnf`',
    unseen: 'W-1, W-2, W-3, W-5, W-6, W-7 and W-9 ask for one each',
  },
  'W-16': { level: 'must', says: 'nobody accepts a token without a proof that its key is held', unseen: unseen.presentation },
  'W-17': { level: 'must', says: 'a token is shown with a proof, and never as a bearer token', unseen: unseen.presentation },
  'W-18': { level: 'should', says: 'the proof is a WIMSE proof token or HTTP signature', unseen: unseen.presentation },
  'W-19': {
    level: 'must',
    says: 'the key of a WIT authority has a key id that no other key of the bundle has',
    judges: { bundle: (document) => entries(({ use }) => use === 'wit-svid', hasKeyId)(document) ?? sharedKeyId(document) },
    asks: async (api) => {
      const [wit, jwt] = [await api.keySets('witBundles'), await api.keySets('jwtBundles')]
      for (const [domain, bytes] of wit) {
        const tokens = new Set(keysOf(jwt.get(domain) ?? emptySet).map(({ kid }) => kid))
        const flaw = of(keysOf(bytes), (key) =>
          key['kid'] !== undefined && tokens.has(key['kid']) ? finding('a key id that no JWT authority has', told(key['kid'])) : undefined,
        )
        if (flaw) return flaw
      }
      return undefined
    },
  },
  'W-20': { level: 'must', says: 'a consumer takes only the keys with the use `wit-svid`', unseen: unseen.consumers },
  'W-21': { level: 'must', says: 'a proof lives for a limited time', unseen: unseen.presentation },
  'W-22': { level: 'must', says: 'token and proof travel over a secure channel', unseen: unseen.presentation },
  'W-23': {
    level: 'derived',
    says: 'a WIT-SVID is no JWT-SVID, and the reverse',
    asks: async (api) => {
      for (const { token } of await api.tokens('wit')) {
        const answer = await api.validate(token.text)
        if (!isEnded(answer)) return finding('ValidateJWTSVID refuses a WIT-SVID', `it is valid for \`${answer.spiffeId}\``)
      }
      return undefined
    },
  },
})

/** The key in `cnf` (RFC 7800 section 3.2). */
export function confirmed(claims: Json): Json | undefined {
  const cnf = claims['cnf']
  const jwk = isObject(cnf) ? cnf['jwk'] : undefined
  return isObject(jwk) ? jwk : undefined
}

function sharedKeyId(document: JsonDocument): Finding | undefined {
  const ids = keysIn(document).map(({ kid }) => kid)
  return of(
    keysIn(document).filter(({ use }) => use === 'wit-svid'),
    ({ kid }) =>
      kid !== undefined && ids.filter((one) => one === kid).length > 1
        ? finding('a `kid` of its own', `\`${told(kid)}\` twice`)
        : undefined,
  )
}

const emptySet = new Uint8Array(0)
