/** A Workload API on a socket of its own, with real keys and real signatures, that is good until it is given a defect. */
import { createPublicKey, generateKeyPairSync, type KeyObject, randomUUID, sign } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Http2Server, type IncomingHttpHeaders, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Json } from '../../src/conformance/documents.ts'
import { decode, field, joined, type Message, textOf } from '../../src/conformance/wire.ts'
import { methods, status } from '../../src/conformance/workload-api.ts'
import { type Issued, TestCa, type Wishes } from '../support/test-ca.ts'

/** An X509-SVID, JWT-SVID or WIT-SVID of the wire by field numbers. */
export type Parts = Record<number, string | Uint8Array>
interface Refusal {
  readonly status: number
  readonly text?: string
}
export const refused = (code: number): Refusal => ({ status: code, text: 'refused' })

/** What is wrong; left out, it is right. */
export interface Defect {
  /** Of the second identity. */
  readonly id?: string
  /** Of the second identity's certificate. */
  readonly leaf?: Wishes
  /** Of the certificate that signs leaves. */
  readonly signer?: Wishes
  /** What is laid over header and claims of every token; undefined removes. */
  readonly jwt?: { readonly header?: Json; readonly claims?: Json; readonly text?: (token: string) => string }
  readonly wit?: { readonly header?: Json; readonly claims?: Json }
  /** The X509-SVIDs, JWT-SVIDs or WIT-SVIDs of an answer, changed. `asked` counts the answers of this kind. */
  readonly answer?: { readonly [Kind in 'x509' | 'jwt' | 'wit']?: (svids: readonly Parts[], asked: number) => readonly Parts[] }
  /** The bundles of an answer, by their key. */
  readonly bundles?: {
    readonly [Kind in 'x509' | 'jwt' | 'wit']?: (bundles: ReadonlyMap<string, Uint8Array>) => ReadonlyMap<string, Uint8Array>
  }
  /** The members of the key sets. */
  readonly keys?: { readonly [Kind in 'jwt' | 'wit']?: (keys: readonly Json[]) => readonly Json[] }
  /** What FetchJWTSVID takes an ID for. */
  readonly reads?: (asked: string, own: string) => string | Refusal
  /** Tokens that are valid although they are not. */
  readonly accepts?: (token: string, own: string) => string | undefined
  /** Refuses tokens that are valid. */
  readonly refuses?: (token: string, times: number) => boolean
  /** Names of claims that ValidateJWTSVID keeps to itself. */
  readonly withoutClaims?: readonly string[]
  readonly ignoresAudience?: boolean
  /** The header that a request needs. */
  readonly admits?: (header: string | undefined) => boolean
  /** Answers of whole methods. */
  readonly methods?: Readonly<Record<string, Refusal | 'silent'>>
  readonly contentType?: string
  readonly unknownMethod?: Refusal
  readonly reflection?: false | readonly string[]
  readonly lacksArguments?: Refusal
  /** Closes the connection after so many calls, which is no defect. */
  readonly hangsUpAfter?: number
  /** Only the first identity while another stream is open. */
  readonly tellsTheRest?: boolean
}

interface Identity {
  readonly id: string
  readonly hint: string
  readonly issued: Issued
  readonly witKey: { readonly publicKey: KeyObject; readonly privateKey: KeyObject }
}

export class BrokenWorkloadApi implements AsyncDisposable {
  readonly socket: string
  readonly #directory: string
  readonly #server: Http2Server
  readonly #sessions = new Set<ServerHttp2Session>()

  private constructor(directory: string, server: Http2Server) {
    this.#directory = directory
    this.#server = server
    this.socket = join(directory, 's')
    server.on('session', (session) => {
      this.#sessions.add(session)
      session.on('error', () => {}).once('close', () => this.#sessions.delete(session))
    })
  }

  static async start(defect: Defect = {}): Promise<BrokenWorkloadApi> {
    const state = await State.make(defect)
    const server = createServer()
    server.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
      stream.on('error', () => {})
      void requestOf(stream).then((request) => state.respond(stream, headers, request))
    })
    server.on('session', (session) => {
      let calls = 0
      session.on('stream', () => {
        if (++calls === defect.hangsUpAfter) session.close()
      })
    })
    const api = new BrokenWorkloadApi(await mkdtemp(join(tmpdir(), 'vb-')), server)
    server.listen(api.socket)
    await once(server, 'listening')
    return api
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const session of this.#sessions) session.destroy()
    this.#server.close()
    await once(this.#server, 'close')
    await rm(this.#directory, { recursive: true, force: true })
  }
}

/** Who is known, with which keys, and what was handed out. */
class State {
  readonly #defect: Defect
  readonly #root: TestCa
  readonly #signer: TestCa
  readonly #identities: readonly Identity[]
  readonly #keys = { jwt: newKey(), wit: newKey() }
  /** Tokens with their subjects, audiences and how often they were shown. */
  readonly #handedOut = new Map<string, { readonly sub: string; readonly audience: readonly string[]; times: number }>()
  readonly #asked = { x509: 0, jwt: 0, wit: 0 }
  readonly #open = new Set<ServerHttp2Stream>()

  private constructor(defect: Defect, root: TestCa, signer: TestCa, identities: readonly Identity[]) {
    this.#defect = defect
    this.#root = root
    this.#signer = signer
    this.#identities = identities
  }

  static async make(defect: Defect): Promise<State> {
    const root = await TestCa.create({ at: Date.now() })
    const signer = await root.intermediate(defect.signer)
    const two = defect.id ?? 'spiffe://example.org/two'
    const identities = await Promise.all([identity('spiffe://example.org/one', '', signer), identity(two, 'internal', signer, defect.leaf)])
    return new State(defect, root, signer, identities)
  }

  respond(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, request: Message): void {
    const method = String(headers[':path'])
    const answer = this.#answer(method, headers, request, stream)
    if (answer === 'silent') return
    const head = { ':status': 200, 'content-type': this.#defect.contentType ?? 'application/grpc' }
    if (!(answer instanceof Uint8Array)) {
      stream.respond({ ...head, 'grpc-status': String(answer.status), 'grpc-message': answer.text ?? '' }, { endStream: true })
      return
    }
    stream.respond(head, { waitForTrailers: true })
    stream.once('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
    const frame = Buffer.alloc(5)
    frame.writeUInt32BE(answer.length, 1)
    stream.write(Buffer.concat([frame, answer]))
    if (unary.has(method)) return void stream.end()
    this.#open.add(stream)
    stream.once('close', () => this.#open.delete(stream))
  }

  #answer(method: string, headers: IncomingHttpHeaders, request: Message, stream: ServerHttp2Stream): Uint8Array | Refusal | 'silent' {
    if (method.startsWith('/grpc.reflection.v1.')) return this.#reflected(request)
    const header = headers['workload.spiffe.io']
    const admits = this.#defect.admits ?? ((value) => value === 'true')
    if (!admits(Array.isArray(header) ? header.join(', ') : header)) return refused(status.invalidArgument)
    const replaced = this.#defect.methods?.[method]
    if (replaced) return replaced
    switch (method) {
      case methods.x509:
        return this.#x509([...this.#open].some((other) => other.session === stream.session))
      case methods.x509Bundles:
        return mapped(2, this.#bundles('x509', this.#root.certificate.raw))
      case methods.jwt:
        return this.#jwt(request)
      case methods.jwtBundles:
        return mapped(1, this.#bundles('jwt', this.#keySet('jwt')))
      case methods.validate:
        return this.#validate(textOf(request, 1), textOf(request, 2))
      case methods.wit:
        return svids(
          this.#changed(
            'wit',
            this.#identities.map((one) => this.#witOf(one)),
          ),
        )
      case methods.witBundles:
        return mapped(1, this.#bundles('wit', this.#keySet('wit')))
      default:
        return this.#defect.unknownMethod ?? { status: status.unimplemented }
    }
  }

  #x509(another: boolean): Uint8Array {
    const held = this.#identities.map(({ id, hint, issued }): Parts => ({
      1: id,
      2: joined(issued.certificate.raw, this.#signer.certificate.raw),
      3: Buffer.from(issued.keyPem.replaceAll(/-----.*?-----|\s/g, ''), 'base64'),
      4: this.#root.certificate.raw,
      5: hint,
    }))
    return svids(this.#changed('x509', another && this.#defect.tellsTheRest ? held.slice(0, 1) : held))
  }

  #jwt(request: Message): Uint8Array | Refusal {
    const audience = (request.get(1) ?? []).map((value) => Buffer.from(value as Uint8Array).toString())
    if (audience.length === 0) return this.#defect.lacksArguments ?? refused(status.invalidArgument)
    const asked = textOf(request, 2)
    const meant = asked === '' ? '' : (this.#defect.reads?.(asked, this.#identities[0]!.id) ?? asked)
    if (typeof meant !== 'string') return meant
    const held = this.#identities.filter(({ id }) => meant === '' || id === meant)
    if (held.length === 0) return refused(status.permissionDenied)
    return svids(
      this.#changed(
        'jwt',
        held.map(({ id, hint }) => ({ 1: id, 2: this.#jwtOf(id, audience), 3: hint })),
      ),
    )
  }

  #jwtOf(sub: string, audience: readonly string[]): string {
    const { header, claims, text = (token: string) => token } = this.#defect.jwt ?? {}
    const all: Json = { sub, aud: audience, exp: inFiveMinutes(), iat: now(), jti: randomUUID(), ...claims }
    const token = text(signed({ alg: 'ES256', kid: 'jwt-1', typ: 'JWT', ...header }, all, this.#keys.jwt.privateKey))
    this.#handedOut.set(token, { sub: (all['sub'] as string | undefined) ?? sub, audience, times: 0 })
    return token
  }

  #witOf({ id, hint, witKey }: Identity): Parts {
    const { header, claims } = this.#defect.wit ?? {}
    const cnf = { jwk: { ...witKey.publicKey.export({ format: 'jwk' }), alg: 'ES256' } }
    const all = { sub: id, exp: inFiveMinutes(), iat: now(), jti: randomUUID(), cnf, ...claims }
    const token = signed({ alg: 'ES256', kid: 'wit-1', typ: 'wit+jwt', ...header }, all, this.#keys.wit.privateKey)
    return { 1: id, 2: token, 3: JSON.stringify(witKey.privateKey.export({ format: 'jwk' })), 4: hint }
  }

  /** Valid is what was handed out, for whom it was meant; nothing else needs to be understood. */
  #validate(audience: string, token: string): Uint8Array | Refusal {
    if (audience === '' || token === '') return this.#defect.lacksArguments ?? refused(status.invalidArgument)
    const known = this.#handedOut.get(token)
    const accepted = this.#defect.accepts?.(token, this.#identities[0]!.id)
    if (accepted !== undefined) return validated(accepted, ['sub', 'aud', 'exp'])
    if (!known || !(known.audience.includes(audience) || this.#defect.ignoresAudience)) return refused(status.invalidArgument)
    if (this.#defect.refuses?.(token, ++known.times)) return refused(status.invalidArgument)
    const claims = ['sub', 'aud', 'exp', 'iat'].filter((name) => !this.#defect.withoutClaims?.includes(name))
    return validated(known.sub, claims)
  }

  #keySet(kind: 'jwt' | 'wit'): Uint8Array {
    const jwk = { ...createPublicKey(this.#keys[kind].privateKey).export({ format: 'jwk' }), kid: `${kind}-1` }
    return Buffer.from(JSON.stringify({ keys: this.#defect.keys?.[kind]?.([jwk]) ?? [jwk] }))
  }

  #bundles(kind: 'x509' | 'jwt' | 'wit', own: Uint8Array): ReadonlyMap<string, Uint8Array> {
    const bundles = new Map([['spiffe://example.org', own]])
    return this.#defect.bundles?.[kind]?.(bundles) ?? bundles
  }

  #changed(kind: 'x509' | 'jwt' | 'wit', held: readonly Parts[]): readonly Parts[] {
    return this.#defect.answer?.[kind]?.(held, ++this.#asked[kind]) ?? held
  }

  #reflected(request: Message): Uint8Array | Refusal {
    const { reflection = [] } = this.#defect
    if (reflection === false) return { status: status.unimplemented }
    const service = 'SpiffeWorkloadAPI'
    if (!request.has(4)) return field(6, field(1, field(1, service)))
    const names = [...Object.values(methods).map((path) => path.slice(path.lastIndexOf('/') + 1)), ...reflection]
    const described = joined(field(1, service), ...names.map((name) => field(2, field(1, name))))
    return field(4, field(1, field(6, described)))
  }
}

async function identity(id: string, hint: string, signer: TestCa, wishes: Wishes = {}): Promise<Identity> {
  return { id, hint, issued: await signer.leaf({ uris: [id], ...wishes }), witKey: newKey() }
}

/** The first message of a call; without one, an empty one when the caller has said everything. */
function requestOf(stream: ServerHttp2Stream): Promise<Message> {
  const { promise, resolve } = Promise.withResolvers<Message>()
  let all = Buffer.alloc(0)
  stream.on('data', (part: Buffer) => {
    all = Buffer.concat([all, part])
    if (all.length >= 5 && all.length >= 5 + all.readUInt32BE(1)) resolve(decode(all.subarray(5, 5 + all.readUInt32BE(1))))
  })
  stream.once('end', () => resolve(new Map()))
  return promise
}

const svids = (list: readonly Parts[]): Uint8Array =>
  joined(...list.map((parts) => field(1, joined(...Object.entries(parts).map(([number, value]) => field(Number(number), value))))))

const mapped = (number: number, map: ReadonlyMap<string, Uint8Array>): Uint8Array =>
  joined(...[...map].map(([key, value]) => field(number, joined(field(1, key), field(2, value)))))

const validated = (id: string, claims: readonly string[]): Uint8Array =>
  joined(field(1, id), field(2, joined(...claims.map((name) => field(1, joined(field(1, name), field(2, field(3, 'x'))))))))

function signed(header: Json, claims: Json, key: KeyObject): string {
  const text = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
  return `${text}.${sign('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`
}

const newKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })
const now = () => Math.floor(Date.now() / 1000)
const inFiveMinutes = () => now() + 300
const unary: ReadonlySet<string> = new Set([methods.jwt, methods.validate, methods.wit])
