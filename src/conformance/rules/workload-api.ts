/** Workload API: spiffe:standards/SPIFFE_Workload_API.md. */
import { createPublicKey } from 'node:crypto'
import { sameBytes } from '../../kernel/bytes.ts'
import { parseCertificates } from '../../x509/certificate.ts'
import { isObject, keysIn, type Token } from '../documents.ts'
import { failing, of } from '../judging.ts'
import { jsonInAnswer } from '../json.ts'
import { unseen } from '../reasons.ts'
import { finding, type Finding, type Rule, section, told, Unseen } from '../rule.ts'
import { stranger } from '../vectors/spiffe-ids.ts'
import { about, signedByStranger, withOtherSignature } from '../vectors/tokens.ts'
import { bytesOf, type Ended, field, isMessage, joined, type Message, messagesOf } from '../wire.ts'
import {
  certificatesOf,
  type HeldX509,
  isEnded,
  keyOf,
  type MethodName,
  methods,
  NoAnswer,
  status,
  tellStatus,
  tokensIn,
  type WorkloadApi,
  x509In,
} from '../workload-api.ts'
import { audienceOf, hasKeyId } from './jwt-svid.ts'
import { confirmed } from './wit-svid.ts'

/** The first answer of a stream comes at once: nobody has to do anything before. */
const atOnceMs = 2000

/** Every field that the standard gives a message, those of its parts inside. */
type Shape = { readonly [field: number]: true | Shape }
const entry: Shape = { 1: true, 2: true }
const shapes: Readonly<Partial<Record<MethodName, Shape>>> = {
  x509: { 1: { 1: true, 2: true, 3: true, 4: true, 5: true }, 2: true, 3: entry },
  x509Bundles: { 1: true, 2: entry },
  jwt: { 1: { 1: true, 2: true, 3: true } },
  jwtBundles: { 1: entry },
  wit: { 1: { 1: true, 2: true, 3: true, 4: true } },
  witBundles: { 1: entry },
}

export const workloadApiRules: readonly Rule[] = section({
  'API-1': {
    level: 'must',
    says: 'the profiles for X509-SVIDs and JWT-SVIDs are there',
    asks: async (api) => {
      const asked = joined(field(1, api.audience), field(2, 'x.y.z'))
      for (const name of ['x509', 'x509Bundles', 'jwt', 'jwtBundles', 'validate'] as const) {
        const answer = await api.outcome(methods[name], name === 'jwt' || name === 'validate' ? asked : undefined)
        if (!isMessage(answer) && answer.status === status.unimplemented) return finding(`an answer of ${methods[name]}`, 'Unimplemented')
      }
      return undefined
    },
  },
  'API-2': {
    level: 'must',
    says: 'the messages are those of the standard, with nothing added',
    asks: async (api) => {
      let seen = 0
      for (const [name, shape] of Object.entries(shapes) as [MethodName, Shape][]) {
        const message = await answerOrNone(api, name)
        if (!message) continue
        seen++
        const strange = strangeField(message, shape)
        if (strange !== undefined) return finding('the fields of the standard', `field ${strange} in an answer of ${methods[name]}`)
      }
      return seen > 0 ? undefined : new Unseen('no method answered')
    },
  },
  'API-3': { level: 'should', says: 'a client keeps its stream open, and opens it again at once', unseen: unseen.clients },
  'API-4': {
    level: 'must',
    says: 'every message of a stream tells everything',
    asks: async (api) => {
      const idsOf = (message: Message) => x509In(message).map(({ spiffeId }) => spiffeId)
      const [first, second] = (await api.twice()).map(idsOf) as [string[], string[]]
      const lacking = first.find((id) => !second.includes(id))
      return lacking === undefined
        ? undefined
        : finding('every identity in the first message of a second stream', `${second.length} of ${first.length}, without \`${lacking}\``)
    },
  },
  'API-5': {
    level: 'must',
    says: 'a stream begins with an answer at once',
    asks: async (api) => {
      let seen = 0
      for (const name of ['x509', 'x509Bundles', 'jwtBundles'] as const) {
        const began = api.clock.now()
        const answer = await api.outcome(methods[name])
        const took = api.clock.now() - began
        if (!isMessage(answer) && answer.status !== status.deadlineExceeded) continue
        seen++
        if (isMessage(answer) && took <= atOnceMs) continue
        const found = isMessage(answer) ? `one after ${took / 1000} s` : 'none'
        return finding(`the first message within ${atOnceMs / 1000} s`, `${found} from ${methods[name]}`)
      }
      return seen > 0 ? undefined : new Unseen('no stream answered')
    },
  },
  'API-6': { level: 'may', says: 'what is new for many may be spread over a while', unseen: unseen.permission },
  'API-7': { level: 'must', says: 'a client takes an empty value for what it is, and keeps no older one', unseen: unseen.clients },
  'API-8': { level: 'should', says: 'a client lets go of what is not there any more', unseen: unseen.clients },
  'API-9': {
    level: 'should',
    says: 'a request without what it must have is an invalid argument',
    asks: async (api) => {
      const lacking = [
        ['FetchJWTSVID without an audience', methods.jwt, joined()],
        ['ValidateJWTSVID without an audience', methods.validate, field(2, 'x.y.z')],
        ['ValidateJWTSVID without a token', methods.validate, field(1, api.audience)],
      ] as const
      for (const [what, method, request] of lacking) {
        const answer = await api.outcome(method, request)
        if (isMessage(answer)) return finding('InvalidArgument', `an answer to ${what}`)
        // Whoever has no identity learns nothing else.
        if (answer.status === status.permissionDenied) throw new NoAnswer(method, answer)
        if (answer.status !== status.invalidArgument && answer.status !== status.unimplemented)
          return finding('InvalidArgument', `${tellStatus(answer)} to ${what}`)
      }
      return undefined
    },
  },
  'API-10': { level: 'should', says: 'a client reports an answer without what it must have, and discards it', unseen: unseen.clients },
  'API-11': { level: 'must', says: 'a peer is validated with the bundle of its own trust domain alone', unseen: unseen.clients },
  'API-12': {
    level: 'must',
    says: 'there is an X509-SVID, and each has its identity, chain, key and bundle',
    asks: async (api) => {
      const held = await api.x509()
      if (held.length === 0) return finding('at least one X509-SVID', 'none')
      return of(held, (one) => {
        const empty = (['spiffeId', 'chainDer', 'keyDer', 'bundleDer'] as const).find((part) => one[part].length === 0)
        return empty && finding(`${parts[empty]} of an X509-SVID`, 'nothing')
      })
    },
  },
  'API-13': {
    level: 'must',
    says: 'a chain is DER, one certificate after the other, its leaf first; the key is plain PKCS #8, and the leaf’s',
    asks: async (api) => of(await api.x509(), wellWritten),
  },
  'API-14': {
    level: 'must',
    says: 'no hint is given to two X509-SVIDs',
    asks: async (api) => repeatedHint(await api.x509()),
  },
  'API-15': {
    level: 'should',
    says: 'whoever loses its identities is denied, and lets go of them',
    unseen: 'it takes an operator who withdraws them; EP-14 sees a caller that has none',
  },
  'API-16': { level: 'must', says: 'the X.509 bundles authenticate X509-SVIDs and nothing else', unseen: unseen.clients },
  'API-17': {
    level: 'must',
    says: 'the X.509 bundles are certificates in DER, that of the own trust domain among them',
    asks: async (api) => {
      const missing = await unanswered(() => api.x509Bundles())
      if (missing) return missing
      const bundles = await api.x509Bundles()
      const own = trustDomainId(await api.ownId())
      const bundle = bundles.get(own)
      if (bundle === undefined) return finding(`a bundle of \`${own}\``, [...bundles.keys()].join(', ') || 'no bundles')
      return of([...bundles], ([id, der]) => failing(() => parseCertificates(der), `certificates in the bundle of \`${id}\``))
    },
  },
  'API-18': {
    level: 'must',
    says: 'JWT-SVIDs come for each identity, or for the one that was asked for, with the audience that was asked for',
    asks: async (api) => (await jwtForEveryone(api)) ?? jwtForOne(api),
  },
  'API-19': {
    level: 'must',
    says: 'the JWT bundles are JWK sets with keys for JWT-SVIDs alone, that of the own trust domain among them',
    asks: async (api) => {
      const missing = await unanswered(() => api.keySets('jwtBundles'))
      if (missing) return missing
      const sets = await api.keySets('jwtBundles')
      const own = trustDomainId(await api.ownId())
      if (!sets.has(own)) return finding(`a JWK set of \`${own}\``, [...sets.keys()].join(', ') || 'no sets')
      return of([...sets], ([id, bytes]) => keySetFlaw(id, bytes, 'jwt-svid'))
    },
  },
  'API-20': {
    level: 'must',
    says: 'a JWT-SVID is validated: a good one with its claims, a changed one not',
    asks: async (api) => {
      const token = await api.freshToken()
      const answer = await api.validate(token.text)
      if (isEnded(answer)) return refusedGood(answer)
      const sub = token.claims?.['sub']
      if (sub !== undefined && answer.spiffeId !== sub) return finding(`\`${told(sub)}\`, as the token says`, answer.spiffeId)
      const lacking = ['sub', 'aud', 'exp'].find((name) => !answer.claims.includes(name))
      if (lacking !== undefined) return finding(`the claim \`${lacking}\``, answer.claims.join(', ') || 'no claims')
      for (const changed of [withOtherSignature(token), about(token, stranger.neighbour(await api.ownId())), 'x.y.z']) {
        const refusal = await api.validate(changed)
        if (!isEnded(refusal)) return finding('a changed token is refused', `it is valid for \`${refusal.spiffeId}\``)
        if (refusal.status !== status.invalidArgument) return finding('InvalidArgument for a changed token', tellStatus(refusal))
      }
      return undefined
    },
  },
  'API-21': { level: 'should', says: 'a client has its tokens validated by the API', unseen: unseen.clients },
  'API-22': {
    level: 'must',
    says: 'a token is validated with the bundle of its subject’s trust domain: without one it is not trusted',
    asks: async (api) => {
      await api.realToken()
      const exp = Math.floor(api.clock.now() / 1000) + 300
      const answer = await api.validate(signedByStranger({ sub: stranger.named, aud: [api.audience], exp }))
      return isEnded(answer)
        ? undefined
        : finding('a token of a trust domain that nobody knows is refused', `it is valid for \`${answer.spiffeId}\``)
    },
  },
  'API-23': {
    level: 'must',
    says: 'the methods for WIT-SVIDs are there, or unimplemented',
    asks: async (api) => {
      const outcomes = [await api.outcome(methods.wit), await api.outcome(methods.witBundles)]
      const odd = outcomes.find((one) => !isMessage(one) && one.status !== status.unimplemented && one.status !== status.permissionDenied)
      if (odd && !isMessage(odd)) return finding('an answer, PermissionDenied or Unimplemented', tellStatus(odd))
      const missing = outcomes.filter((one) => !isMessage(one) && one.status === status.unimplemented).length
      return missing === 1 ? finding('both methods or none', 'one of them is unimplemented') : undefined
    },
  },
  'API-24': {
    level: 'should',
    says: 'WIT-SVIDs come for each identity, each with the key it confirms',
    asks: async (api) => {
      const held = await api.tokens('wit')
      const lacking = await lackingIdentity(
        api,
        held.map(({ spiffeId }) => spiffeId),
      )
      if (lacking !== undefined) return finding(`a WIT-SVID for \`${lacking}\``, `${held.length} for others`)
      return (
        repeatedHint(held) ??
        of(held, ({ key, token }) => {
          const jwk = parsedKey(key)
          if (!jwk) return finding('`wit_svid_key` is a private key, as a JWK', 'something else')
          const confirmedKey = token.claims && confirmed(token.claims)
          const fits = !confirmedKey || ['x', 'y', 'n', 'e'].every((part) => [undefined, jwk[part]].includes(confirmedKey[part]))
          return fits ? undefined : finding('the key that `cnf` confirms', 'another')
        })
      )
    },
  },
  'API-25': {
    level: 'should',
    says: 'the WIT bundles are JWK sets, each key with an id of its own, that of the own trust domain among them',
    asks: async (api) => {
      const sets = await api.keySets('witBundles')
      const own = trustDomainId(await api.ownId())
      if (!sets.has(own)) return finding(`a JWK set of \`${own}\``, [...sets.keys()].join(', ') || 'no sets')
      return of([...sets], ([id, bytes]) => {
        const flaw = keySetFlaw(id, bytes, 'wit-svid')
        if (flaw) return flaw
        const keys = keysIn(jsonInAnswer(bytes))
        const repeated = keys.find(({ kid }, place) => keys.findIndex((other) => other['kid'] === kid) !== place)
        return of(keys, hasKeyId) ?? (repeated && finding('a `kid` of its own for every key', `\`${told(repeated['kid'])}\` twice`))
      })
    },
  },
  'API-26': {
    level: 'must',
    says: 'the default identity is the first one, and stays it',
    asks: async (api) => {
      const own = await api.ownId()
      const firsts = [x509In(await api.rawAgain('x509'))[0]?.spiffeId, x509In(await api.rawAgain('x509'))[0]?.spiffeId]
      const jwt = await answerOrNone(api, 'jwt')
      if (jwt) firsts.push(tokensIn(jwt, 'jwt', 0, api.audience)[0]?.spiffeId)
      const other = firsts.find((id) => id !== undefined && id !== own)
      return other === undefined ? undefined : finding(`\`${own}\` first, every time`, other)
    },
  },
  'API-27': {
    level: 'should',
    says: 'no hint is longer than 1024 bytes',
    asks: async (api) => {
      const hints = [...(await api.x509()), ...(await tokensOrNone(api))].map(({ hint }) => Buffer.byteLength(hint))
      return of(hints, (bytes) => (bytes > 1024 ? finding('at most 1024 bytes', `${bytes}`) : undefined))
    },
  },
})

/** A method that must answer and does not. `Unimplemented`, `PermissionDenied` and silence are other rules' business. */
async function unanswered(ask: () => Promise<unknown>): Promise<Finding | undefined> {
  try {
    await ask()
    return undefined
  } catch (error) {
    if (error instanceof NoAnswer && !elsewhere.has(error.ended.status)) return finding('an answer', error.message)
    throw error
  }
}

async function jwtForEveryone(api: WorkloadApi): Promise<Finding | undefined> {
  const missing = await unanswered(() => api.tokens('jwt'))
  if (missing) return missing
  const tokens = await api.tokens('jwt')
  if (tokens.length === 0) return finding('at least one JWT-SVID', 'none')
  const lacking = await lackingIdentity(
    api,
    tokens.map(({ spiffeId }) => spiffeId),
  )
  if (lacking !== undefined) return finding(`a JWT-SVID for \`${lacking}\``, `${tokens.length} for others`)
  const empty = tokens.find(({ spiffeId, token }) => spiffeId === '' || token.text === '')
  if (empty) return finding('an identity and a token in every JWT-SVID', 'nothing')
  const deaf = tokens.find(({ token }) => !isFor(token, api.audience))
  return deaf ? finding(`the audience \`${api.audience}\``, JSON.stringify(deaf.token.claims?.['aud'])) : repeatedHint(tokens)
}

/** A token without any audience is J-9's business. */
function isFor({ claims }: Token, audience: string): boolean {
  const named = audienceOf(claims?.['aud'])
  return named.length === 0 || named.includes(audience)
}

function refusedGood(ended: Ended): Finding {
  if (elsewhere.has(ended.status)) throw new NoAnswer(methods.validate, ended)
  return finding('a token of this API is valid', tellStatus(ended))
}

async function jwtForOne(api: WorkloadApi): Promise<Finding | undefined> {
  const own = (await api.tokens('jwt')).at(-1)?.spiffeId ?? ''
  const one = await api.jwtFor(own)
  if (isEnded(one)) return finding(`a JWT-SVID for \`${own}\``, tellStatus(one))
  const stray = one.find(({ spiffeId }) => spiffeId !== own)
  if (stray || one.length === 0) return finding(`a JWT-SVID for \`${own}\` and no other`, stray ? stray.spiffeId : 'none')
  const other = await api.jwtFor(stranger.neighbour(own))
  if (!isEnded(other)) return finding('PermissionDenied for an identity that is not held', `${other.length} JWT-SVIDs`)
  return other.status === status.permissionDenied
    ? undefined
    : finding('PermissionDenied for an identity that is not held', tellStatus(other))
}

/** An identity that has an X509-SVID and is not among these. */
async function lackingIdentity(api: WorkloadApi, ids: readonly string[]): Promise<string | undefined> {
  return (await x509OrNone(api)).map(({ spiffeId }) => spiffeId).find((id) => !ids.includes(id))
}

function wellWritten(held: HeldX509): Finding | undefined {
  if (held.chainDer.length === 0 || held.keyDer.length === 0) return undefined
  const flaw = failing(() => certificatesOf(held), 'certificates in DER')
  if (flaw) return flaw
  const [leaf, ...others] = certificatesOf(held)
  try {
    const spki = createPublicKey(keyOf(held)).export({ type: 'spki', format: 'der' })
    if (leaf && sameBytes(spki, leaf.spki)) return undefined
    return others.some((each) => sameBytes(spki, each.spki))
      ? finding('the leaf first', 'the certificate of the key behind others')
      : finding('the private key of the leaf', 'another')
  } catch {
    return finding('a private key in PKCS #8, not encrypted', 'something else')
  }
}

function keySetFlaw(id: string, bytes: Uint8Array, use: string): Finding | undefined {
  const flaw = failing(() => jsonInAnswer(bytes), `a JWK set for \`${id}\``)
  if (flaw) return flaw
  const { value } = jsonInAnswer(bytes)
  if (!Array.isArray(value['keys'])) return finding(`a JWK set for \`${id}\``, 'JSON without a list `keys`')
  return of(keysIn(jsonInAnswer(bytes)), (key) => {
    if (key['use'] !== undefined && key['use'] !== use) return finding(`keys for \`${use}\` only`, `one for \`${told(key['use'])}\``)
    return typeof key['kty'] === 'string' ? undefined : finding('a key type in every key', 'a key without `kty`')
  })
}

function repeatedHint(held: readonly { readonly hint: string }[]): Finding | undefined {
  const hints = held.map(({ hint }) => hint).filter((hint) => hint !== '')
  const repeated = hints.find((hint, place) => hints.indexOf(hint) !== place)
  return repeated === undefined ? undefined : finding('a hint for one SVID each', `\`${repeated}\` for two`)
}

/** The number of a field that the shape does not have, with those around it: `1.7`. */
function strangeField(message: Message, shape: Shape): string | undefined {
  for (const number of message.keys()) {
    const inside = shape[number]
    if (inside === undefined) return String(number)
    if (inside === true || !(bytesOf(message, number) instanceof Uint8Array)) continue
    for (const part of messagesOf(message, number)) {
      const strange = strangeField(part, inside)
      if (strange !== undefined) return `${number}.${strange}`
    }
  }
  return undefined
}

function parsedKey(text: string) {
  try {
    const value: unknown = JSON.parse(text)
    return isObject(value) && typeof value['kty'] === 'string' && typeof value['d'] === 'string' ? value : undefined
  } catch {
    return undefined
  }
}

const answerOrNone = (api: WorkloadApi, name: MethodName) => orUndefined(() => api.raw(name))
const tokensOrNone = async (api: WorkloadApi) => (await orUndefined(() => api.tokens('jwt'))) ?? []
const x509OrNone = async (api: WorkloadApi) => (await orUndefined(() => api.x509())) ?? []

async function orUndefined<T>(ask: () => Promise<T>): Promise<T | undefined> {
  try {
    return await ask()
  } catch (error) {
    if (error instanceof NoAnswer) return undefined
    throw error
  }
}

const elsewhere: ReadonlySet<number> = new Set([status.unimplemented, status.permissionDenied, status.deadlineExceeded])
const trustDomainId = (id: string): string => /^spiffe:\/\/[^/]*/.exec(id)?.[0] ?? id
const parts = { spiffeId: 'the SPIFFE ID', chainDer: 'the chain', keyDer: 'the key', bundleDer: 'the bundle' } as const
