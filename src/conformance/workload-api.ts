/** A Workload API as it is seen from outside: every answer is asked for once, when the first check needs it, and kept. */
import { createPrivateKey, type KeyObject } from 'node:crypto'
import type { OutgoingHttpHeaders } from 'node:http2'
import type { Clock } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import { type Certificate, parseCertificates } from '../x509/certificate.ts'
import { type Chain, type DocumentKind, type DocumentOf, type Json, keysIn, readToken, signingsOf, type Token } from './documents.ts'
import { jsonInAnswer } from './json.ts'
import { bytesOf, type Ended, field, isMessage, joined, mapOf, type Message, messagesOf, textOf, type Wire } from './wire.ts'

/** The methods of the service (Workload API section 5 to 7). */
export const methods = {
  x509: '/SpiffeWorkloadAPI/FetchX509SVID',
  x509Bundles: '/SpiffeWorkloadAPI/FetchX509Bundles',
  jwt: '/SpiffeWorkloadAPI/FetchJWTSVID',
  jwtBundles: '/SpiffeWorkloadAPI/FetchJWTBundles',
  validate: '/SpiffeWorkloadAPI/ValidateJWTSVID',
  wit: '/SpiffeWorkloadAPI/FetchWITSVID',
  witBundles: '/SpiffeWorkloadAPI/FetchWITBundles',
} as const
export type MethodName = keyof typeof methods

/** The status codes that rules name. */
export const status = { ok: 0, invalidArgument: 3, deadlineExceeded: 4, permissionDenied: 7, unimplemented: 12, unavailable: 14 } as const

/** A method ended without an answer. */
export class NoAnswer extends Error {
  readonly ended: Ended

  constructor(method: string, ended: Ended) {
    super(`${method.slice(method.lastIndexOf('/') + 1)} ended with ${tellStatus(ended)}`)
    this.name = 'NoAnswer'
    this.ended = ended
  }
}

export interface HeldX509 {
  readonly spiffeId: string
  readonly hint: string
  /** As the wire has them. */
  readonly chainDer: Uint8Array
  readonly keyDer: Uint8Array
  readonly bundleDer: Uint8Array
}

export interface HeldToken {
  readonly spiffeId: string
  readonly hint: string
  readonly token: Token
  /** `wit_svid_key` of a WIT-SVID; the empty text for a JWT-SVID. */
  readonly key: string
}

export interface Validated {
  readonly spiffeId: string
  /** The names of the claims. */
  readonly claims: readonly string[]
}

/** Everything that could be read of what was handed out, by its kind. */
export type Collected = { readonly [Kind in DocumentKind]: readonly DocumentOf<Kind>[] }

interface Asking {
  readonly wire: Wire
  readonly clock: Clock
  readonly audience: string
  readonly known: Map<string, Promise<unknown>>
}

export class WorkloadApi {
  readonly #asking: Asking
  readonly #limit: AbortSignal

  private constructor(asking: Asking, limit: AbortSignal) {
    this.#asking = asking
    this.#limit = limit
  }

  static over(wire: Wire, clock: Clock, audience: string, limit: AbortSignal): WorkloadApi {
    return new WorkloadApi({ wire, clock, audience, known: new Map() }, limit)
  }

  /** The same API, with the same answers known, for a check that must end with `limit`. */
  within(limit: AbortSignal): WorkloadApi {
    return new WorkloadApi(this.#asking, limit)
  }

  get audience(): string {
    return this.#asking.audience
  }

  get clock(): Clock {
    return this.#asking.clock
  }

  /**
   * The first message that a method answers with. A stream is left after it.
   * @throws NoAnswer when it ends before, or when none comes in time; Failure `rpc.unavailable`, `conformance.malformed`
   */
  async ask(method: string, message?: Uint8Array, headers?: OutgoingHttpHeaders, keepOpen = false): Promise<Message> {
    const next = await this.outcome(method, message, headers, keepOpen)
    if (isMessage(next)) return next
    throw new NoAnswer(method, next)
  }

  /** The first message, or how the call ended without one. A call that takes too long has ended with DeadlineExceeded. */
  async outcome(method: string, message?: Uint8Array, headers?: OutgoingHttpHeaders, keepOpen = false): Promise<Message | Ended> {
    const call = this.#asking.wire.call(method, message, headers, { keepOpen })
    try {
      return await call.next(this.#limit)
    } catch (error) {
      if (Failure.from(error).category !== 'deadline_exceeded') throw error
      return { status: status.deadlineExceeded, text: 'nothing came in time' }
    } finally {
      call.cancel()
    }
  }

  /** `content-type` of the answer of FetchX509SVID. */
  async contentType(): Promise<string | undefined> {
    const call = this.#asking.wire.call(methods.x509)
    try {
      await call.next(this.#limit)
      return call.contentType
    } finally {
      call.cancel()
    }
  }

  /** The first answer of a method that is asked without arguments, as it came. */
  raw(name: MethodName): Promise<Message> {
    return this.#once(name, () => this.ask(methods[name], name === 'jwt' ? field(1, this.audience) : undefined))
  }

  /** As {@link raw}, asked for anew. */
  rawAgain(name: MethodName): Promise<Message> {
    return this.ask(methods[name], name === 'jwt' ? field(1, this.audience) : undefined)
  }

  /** The first answers of two streams of FetchX509SVID, the second opened while the first is open. @throws NoAnswer */
  async twice(): Promise<readonly [Message, Message]> {
    const calls = [this.#asking.wire.call(methods.x509)]
    try {
      const first = await calls[0]!.next(this.#limit)
      calls.push(this.#asking.wire.call(methods.x509))
      const second = await calls[1]!.next(this.#limit)
      if (isMessage(first) && isMessage(second)) return [first, second]
      throw new NoAnswer(methods.x509, isMessage(first) ? (second as Ended) : first)
    } finally {
      for (const call of calls) call.cancel()
    }
  }

  async x509(): Promise<readonly HeldX509[]> {
    return x509In(await this.raw('x509'))
  }

  tokens(kind: 'jwt' | 'wit'): Promise<readonly HeldToken[]> {
    return this.#once(`${kind} tokens`, async () => tokensIn(await this.raw(kind), kind, this.clock.now(), this.audience))
  }

  /** Certificates by the key of their trust domain, those that come with SVIDs included. */
  async x509Bundles(): Promise<ReadonlyMap<string, Uint8Array>> {
    return mapOf(await this.raw('x509Bundles'), 2)
  }

  async keySets(kind: 'jwtBundles' | 'witBundles'): Promise<ReadonlyMap<string, Uint8Array>> {
    return mapOf(await this.raw(kind), 1)
  }

  /** A token that this API handed out for the audience of the suite. @throws NoAnswer */
  async realToken(): Promise<Token> {
    return firstOf(await this.tokens('jwt'))
  }

  /** The same, handed out just now. @throws NoAnswer */
  async freshToken(): Promise<Token> {
    return firstOf(tokensIn(await this.rawAgain('jwt'), 'jwt', this.clock.now(), this.audience))
  }

  /** The first identity. @throws NoAnswer */
  async ownId(): Promise<string> {
    const [first] = await this.x509()
    if (first) return first.spiffeId
    throw new NoAnswer(methods.x509, { status: status.ok, text: 'no X509-SVID' })
  }

  /** Has a token validated: what came of it, or how it was refused. */
  async validate(token: string, audience = this.audience): Promise<Validated | Ended> {
    const next = await this.outcome(methods.validate, joined(field(1, audience), field(2, token)))
    if (!isMessage(next)) return next
    const claims = messagesOf(next, 2)[0]
    return { spiffeId: textOf(next, 1), claims: claims ? messagesOf(claims, 1).map((entry) => textOf(entry, 1)) : [] }
  }

  /** Asks for a JWT-SVID of one SPIFFE ID, written in whatever way. */
  async jwtFor(spiffeId: string): Promise<readonly HeldToken[] | Ended> {
    const at = this.clock.now()
    const next = await this.outcome(methods.jwt, joined(field(1, this.audience), field(2, spiffeId)))
    return isMessage(next) ? tokensIn(next, 'jwt', at, this.audience) : next
  }

  /** Everything that was handed out and can be read. What was not answered, or cannot be read, is left out: rules of its own say so. */
  collected(): Promise<Collected> {
    return this.#once('collected', async () => {
      const [x509, bundles, jwt, wit, keySets] = await Promise.all([
        orNone(() => this.x509()),
        orNone(async () => [...(await this.x509Bundles())]),
        orNone(() => this.tokens('jwt')),
        orNone(() => this.tokens('wit')),
        orNone(async () => [...(await this.keySets('jwtBundles'))]),
      ])
      const at = this.clock.now()
      const chains = x509.flatMap((held) => chainOf(held, at))
      const signings = chains.flatMap(signingsOf)
      const leaves = chains.map(({ leaf }) => leaf)
      const ids = [
        ...[...x509, ...jwt, ...wit].map(({ spiffeId }) => spiffeId),
        ...[...leaves, ...signings.map(({ certificate }) => certificate)].flatMap(({ subjectAltName }) => subjectAltName?.uris ?? []),
        ...[...jwt, ...wit].flatMap(({ token }) => subjectsIn(token)),
        ...[...bundles, ...keySets].map(([id]) => id),
      ].filter((id) => id !== '')
      return {
        id: [...new Set(ids)],
        leaf: leaves,
        signing: signings,
        chain: chains.filter(({ roots }) => roots.length > 0),
        jwt: jwt.map(({ token }) => token),
        wit: wit.map(({ token }) => token),
        keySet: keySets.flatMap(([, text]) => readable(() => jsonInAnswer(text))),
        bundle: [],
        map: [],
      }
    })
  }

  #once<T>(name: string, ask: () => Promise<T>): Promise<T> {
    const known = this.#asking.known.get(name)
    if (known) return known as Promise<T>
    const asked = ask()
    this.#asking.known.set(name, asked)
    return asked
  }
}

/** `PermissionDenied: no identity issued` */
export function tellStatus({ status: code, text }: Ended): string {
  const name = statusNames[code] ?? (code === -1 ? 'no gRPC status' : `status ${code}`)
  return text === '' ? name : `${name}: ${text}`
}

export const isEnded = (outcome: object): outcome is Ended => 'status' in outcome

/** The members of a key set of the wire; none of what cannot be read, which API-19 and API-25 say. */
export const keysOf = (bytes: Uint8Array): readonly Json[] => readable(() => jsonInAnswer(bytes)).flatMap(keysIn)

/** The certificates of an X509-SVID as they stand in it. @throws Failure `der.*`, `x509.*` */
export function certificatesOf({ chainDer }: Pick<HeldX509, 'chainDer'>): readonly Certificate[] {
  return parseCertificates(chainDer)
}

/** The private key of an X509-SVID, which is looked at and not kept. @throws Error for what is no PKCS #8 without a password */
export function keyOf({ keyDer }: Pick<HeldX509, 'keyDer'>): KeyObject {
  return createPrivateKey({ key: Buffer.from(keyDer), format: 'der', type: 'pkcs8' })
}

export function x509In(message: Message): HeldX509[] {
  return messagesOf(message, 1).map((svid) => ({
    spiffeId: textOf(svid, 1),
    chainDer: bytesOf(svid, 2),
    keyDer: bytesOf(svid, 3),
    bundleDer: bytesOf(svid, 4),
    hint: textOf(svid, 5),
  }))
}

export function tokensIn(message: Message, kind: 'jwt' | 'wit', at: number, audience: string): HeldToken[] {
  return messagesOf(message, 1).map((svid) => ({
    spiffeId: textOf(svid, 1),
    token: readToken(textOf(svid, 2), at, kind === 'jwt' ? [audience] : undefined),
    key: kind === 'wit' ? textOf(svid, 3) : '',
    hint: textOf(svid, kind === 'wit' ? 4 : 3),
  }))
}

function firstOf([first]: readonly HeldToken[]): Token {
  if (first) return first.token
  throw new NoAnswer(methods.jwt, { status: status.ok, text: 'no JWT-SVID' })
}

/** The subject, where it is meant to be a SPIFFE ID. */
function subjectsIn({ claims }: Token): string[] {
  const sub = claims?.['sub']
  return typeof sub === 'string' && /^spiffe:/i.test(sub) ? [sub] : []
}

function chainOf(held: HeldX509, at: number): Chain[] {
  return readable(() => {
    const [leaf, ...intermediates] = certificatesOf(held)
    if (!leaf) throw new Failure('invalid_argument', 'conformance.malformed', { public: 'there is no certificate' })
    return { leaf, intermediates, roots: readable(() => parseCertificates(held.bundleDer)).flat(), at }
  })
}

function readable<T>(read: () => T): T[] {
  try {
    return [read()]
  } catch (error) {
    if (error instanceof Failure) return []
    throw error
  }
}

async function orNone<T>(ask: () => Promise<readonly T[]>): Promise<readonly T[]> {
  try {
    return await ask()
  } catch (error) {
    if (error instanceof NoAnswer || (error instanceof Failure && error.reason === 'conformance.malformed')) return []
    throw error
  }
}

const statusNames: Readonly<Record<number, string>> = {
  0: 'OK',
  1: 'Cancelled',
  2: 'Unknown',
  3: 'InvalidArgument',
  4: 'DeadlineExceeded',
  5: 'NotFound',
  6: 'AlreadyExists',
  7: 'PermissionDenied',
  8: 'ResourceExhausted',
  9: 'FailedPrecondition',
  10: 'Aborted',
  11: 'OutOfRange',
  12: 'Unimplemented',
  13: 'Internal',
  14: 'Unavailable',
  15: 'DataLoss',
  16: 'Unauthenticated',
}
