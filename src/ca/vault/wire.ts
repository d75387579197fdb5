/**
 * One call to a vault. node-vault shapes the request and reads the answer; the exchange itself is ours, because node-vault's own
 * follows redirects with the token in hand, takes proxies and TLS settings from the environment, and knows neither cancellation nor limits.
 */
import { Agent as HttpAgent, request as requestHttp, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as requestHttps } from 'node:https'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { fromUtf8 } from '../../kernel/bytes.ts'
import { deadline } from '../../kernel/clock.ts'
import { seconds, type Duration } from '../../kernel/duration.ts'
import { Failure, type Category } from '../../kernel/failure.ts'
import type { Secret } from '../../kernel/log.ts'
import type { VaultSettings } from './settings.ts'

export interface VaultCall {
  readonly method: 'GET' | 'POST' | 'DELETE'
  /** By its segments (V-1). */
  readonly path: readonly string[]
  readonly body?: Readonly<Record<string, unknown>>
  /** Asked of the vault itself, not of our namespace. */
  readonly outsideNamespace?: boolean
}

export interface VaultAnswer {
  readonly status: number
  /** JSON, or undefined where there was none. Nobody checked what is in it. */
  readonly body: unknown
}

/** What a call is made with. The token goes to the one server that this connection was made for. */
export interface Connection extends Disposable {
  /**
   * Makes the call once.
   * @throws Failure `vault.bad-request`, `vault.permission-denied`, `vault.not-found`, `vault.redirected`, `vault.busy`, `vault.sealed`,
   *   `vault.standby`, `vault.unavailable`, `vault.unreachable`, `vault.timeout`, `vault.answer-too-long`; `internal.retryAfter` in milliseconds
   */
  send(call: VaultCall, token: Secret | undefined, signal: AbortSignal): Promise<VaultAnswer>
}

/** PEM: whom we believe, and who we are. */
export interface TlsMaterial {
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
}

/** How connections are secured, and who is told. */
export interface Securing {
  /** No connection without X25519MLKEM768 (C-32). */
  readonly requirePostQuantum?: boolean | undefined
  /** Told of each connection: the group of its key exchange, by its name. */
  connected?(secured: { readonly protocol: string; readonly keyExchange: string }): void
}

export async function connectVault(settings: VaultSettings, tls: TlsMaterial, securing: Securing = {}): Promise<Connection> {
  const { default: nodeVault } = await import('node-vault')
  const isPlain = settings.address.startsWith('http:')
  const lasting = { keepAlive: true, maxSockets, scheduling: 'lifo' } as const
  const agent = isPlain
    ? new HttpAgent(lasting)
    : new HttpsAgent({
        ...lasting,
        ...tls,
        ...keyExchange(securing.requirePostQuantum),
        rejectUnauthorized: !settings.dangerouslySkipTlsVerification,
      })
  const exchange = (asked: Omit<Asked, 'securing'>): Promise<Received> =>
    exchangeOver(isPlain ? requestHttp : requestHttps, agent, { ...asked, securing })
  const client = nodeVault({
    endpoint: settings.address,
    noCustomHTTPVerbs: true,
    // Its own would write tokens and requests to standard error when DEBUG is set (V-15).
    debug() {},
    'request-promise': { defaults: () => exchange },
  })
  // Left to itself it takes these from the environment. Ours go with each call (V-16).
  Object.assign(client, { token: '', namespace: '', pathPrefix: '' })
  let underWay = 0
  let disposed = false

  return {
    async send(call, token, signal) {
      const heard: Heard = { status: 0 }
      const headers = {
        ...(token && { 'X-Vault-Token': token.reveal() }),
        ...(settings.namespace !== undefined && !call.outsideNamespace && { 'X-Vault-Namespace': settings.namespace }),
      }
      const options = { headers, heard, signal: deadline(settings.timeout, signal) }
      underWay++
      try {
        const body: unknown = await sendBy(client, call, options)
        return { status: heard.status, body }
      } catch (error) {
        signal.throwIfAborted()
        throw explain(error, call.path, { ...settings, ...securing }, token, heard)
      } finally {
        underWay--
        if (disposed && underWay === 0) agent.destroy()
      }
    },
    [Symbol.dispose]() {
      disposed = true
      if (underWay === 0) agent.destroy()
    },
  }
}

function sendBy(client: import('node-vault').client, { method, path, body }: VaultCall, options: object): Promise<unknown> {
  const place = path.join('/')
  switch (method) {
    case 'GET':
      return client.read(place, options)
    case 'POST':
      return client.write(place, body ?? {}, options)
    case 'DELETE':
      return client.delete(place, options)
  }
}

/** What node-vault hands to the exchange: its own fields, and those that {@link connectVault} added. */
interface Asked {
  readonly method: string
  readonly uri: string
  readonly headers: Readonly<Record<string, string>>
  readonly json?: unknown
  readonly heard: Heard
  readonly signal: AbortSignal
  readonly securing: Securing
}

/** What an answer said beside its body. */
interface Heard {
  status: number
  retryAfter?: Duration
}

/** What node-vault expects of an exchange. */
interface Received {
  readonly statusCode: number
  readonly body: unknown
  readonly request: { readonly path: string }
}

function exchangeOver(
  ask: typeof requestHttps,
  agent: HttpAgent,
  { method, uri, headers, json, heard, signal, securing }: Asked,
): Promise<Received> {
  const url = new URL(uri)
  // node-vault says `true` where there is nothing to send.
  const body = typeof json === 'object' ? Buffer.from(JSON.stringify(json), 'utf8') : undefined
  const options = {
    method,
    headers: {
      ...headers,
      accept: 'application/json',
      'x-vault-request': 'true',
      ...(body ? { 'content-type': 'application/json', 'content-length': body.length } : {}),
    },
    agent,
    signal,
  }
  return new Promise((resolve, reject) => {
    const request = ask(url, options, (response) => {
      const after = Number(response.headers['retry-after'])
      if (after > 0) heard.retryAfter = Math.min(seconds(after), longestRetryAfter)
      heard.status = response.statusCode ?? 0
      collect(response).then(
        (text) => resolve({ statusCode: heard.status, body: readJson(text), request: { path: url.pathname } }),
        (error: unknown) => {
          request.destroy()
          reject(error)
        },
      )
    })
    request.on('error', reject)
    request.on('socket', (socket) => tellSecured(socket, securing))
    request.end(body)
  })
}

/** The first request of a connection tells of it. */
function tellSecured(socket: Socket, { connected }: Securing): void {
  if (!connected || !(socket instanceof TLSSocket) || told.has(socket)) return
  told.add(socket)
  socket.once('secureConnect', () => {
    const { name = '' } = (socket.getEphemeralKeyInfo() ?? {}) as { name?: string }
    connected({ protocol: socket.getProtocol() ?? '', keyExchange: name })
  })
}

/** TLS 1.3 alone has hybrid groups. */
function keyExchange(requirePostQuantum: boolean | undefined) {
  return requirePostQuantum
    ? ({ minVersion: 'TLSv1.3', ecdhCurve: hybridGroup } as const)
    : ({ minVersion: 'TLSv1.2', ecdhCurve: `${hybridGroup}:X25519:P-256:P-384` } as const)
}

/** V-19. */
async function collect(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  let length = 0
  for await (const part of response as AsyncIterable<Buffer>) {
    length += part.length
    if (length > maxAnswerBytes) throw failed('unavailable', 'answer-too-long', `the vault answered with more than ${maxAnswerBytes} bytes`)
    parts.push(part)
  }
  return fromUtf8(Buffer.concat(parts))
}

/** What is not JSON, as proxies send it, is no body. */
function readJson(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text)
    return depthOf(value) > maxDepth ? undefined : value
  } catch {
    return undefined
  }
}

function depthOf(value: unknown): number {
  let depth = 0
  for (let level: unknown[] = [value]; level.length > 0; depth++) {
    level = level.flatMap((one): unknown[] => (typeof one === 'object' && one !== null ? Object.values(one) : []))
  }
  return depth
}

/** What went wrong, in words for whoever is called at night; no token and no request is in it. */
function explain(
  error: unknown,
  path: readonly string[],
  settings: VaultSettings & Securing,
  token: Secret | undefined,
  heard: Heard,
): Failure {
  if (error instanceof Failure) return error
  const place = `\`${path.join('/')}\` of the vault at \`${settings.address}\``
  const answer = answerIn(error)
  if (!answer) return unanswered(error, settings)
  const said = saying(answer.body, token)
  const row = answers.find(({ statuses }) => statuses(answer.statusCode)) ?? answers.at(-1)!
  const text = `${row.tell(place)} (status ${answer.statusCode}${said === '' ? '' : `: ${said}`})`
  return new Failure(row.category, `vault.${row.reason}`, {
    public: text,
    ...(heard.retryAfter === undefined ? {} : { internal: { retryAfter: heard.retryAfter } }),
  })
}

function answerIn(error: unknown): { readonly statusCode: number; readonly body: unknown } | undefined {
  const response = typeof error === 'object' && error !== null && 'response' in error ? error.response : undefined
  return typeof response === 'object' && response !== null && 'statusCode' in response && typeof response.statusCode === 'number'
    ? { statusCode: response.statusCode, body: 'body' in response ? response.body : undefined }
    : undefined
}

function unanswered(error: unknown, { address, timeout, requirePostQuantum }: VaultSettings & Securing): Failure {
  const name = error instanceof Error ? error.name : ''
  if (name === 'AbortError' || name === 'TimeoutError')
    return failed('deadline_exceeded', 'timeout', `the vault at \`${address}\` did not answer within ${timeout / 1000} s`)
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'no code'
  const hint = requirePostQuantum && /^(EPROTO|ERR_SSL_)/.test(code) ? `; \`tls.requirePostQuantum\` asks it for ${hybridGroup}` : ''
  return failed('unavailable', 'unreachable', `the vault at \`${address}\` cannot be reached (${code})${hint}`)
}

/** The vault's own words, on one line, and without the token should they repeat it. */
function saying(body: unknown, token: Secret | undefined): string {
  const errors: unknown = typeof body === 'object' && body !== null && 'errors' in body ? body.errors : undefined
  const texts = Array.isArray(errors) ? errors.filter((one) => typeof one === 'string') : []
  const joined = texts.join('; ')
  return tame(token ? joined.replaceAll(token.reveal(), '[secret]') : joined)
}

/** What somebody else wrote, fit for one line of ours. */
export const tame = (text: string): string =>
  text
    .replace(/[\p{Cc}]+/gu, ' ')
    .trim()
    .slice(0, maxSaying)

interface AnswerRow {
  readonly statuses: (status: number) => boolean
  readonly category: Category
  readonly reason: string
  readonly tell: (place: string) => string
}

/** One row a kind of refusal; the first that fits counts, the last is for all others (V-10). */
const answers: readonly AnswerRow[] = [
  {
    statuses: (status) => status === 400,
    category: 'failed_precondition',
    reason: 'bad-request',
    tell: (place) => `${place} refused our request`,
  },
  {
    statuses: (status) => status === 401 || status === 403,
    category: 'permission_denied',
    reason: 'permission-denied',
    tell: (place) => `${place} denied us: our token is wrong or has ended, or its policy lacks this path; run \`vidimus vault check\``,
  },
  {
    statuses: (status) => status === 404,
    category: 'failed_precondition',
    reason: 'not-found',
    tell: (place) => `there is no ${place}: check mount, issuer and namespace`,
  },
  {
    statuses: (status) => status >= 300 && status < 400,
    category: 'failed_precondition',
    reason: 'redirected',
    tell: (place) => `${place} redirects: configure the address that it redirects to, for the token is not carried there`,
  },
  { statuses: (status) => status === 429, category: 'unavailable', reason: 'busy', tell: (place) => `${place} has too much to do` },
  {
    statuses: (status) => status === 472 || status === 473,
    category: 'unavailable',
    reason: 'standby',
    tell: (place) => `${place} is a secondary that cannot do this`,
  },
  {
    statuses: (status) => status === 503,
    category: 'unavailable',
    reason: 'sealed',
    tell: (place) => `${place} is sealed or under maintenance`,
  },
  { statuses: () => true, category: 'unavailable', reason: 'unavailable', tell: (place) => `${place} is broken or not initialised` },
]

function failed(category: Category, what: string, text: string): Failure {
  return new Failure(category, `vault.${what}`, { public: text })
}

/** Failures that pass by themselves (V-9). */
export const passes = ({ reason }: Failure): boolean => passing.has(reason)
const passing: ReadonlySet<string> = new Set(
  ['busy', 'sealed', 'standby', 'unavailable', 'unreachable', 'timeout'].map((reason) => `vault.${reason}`),
)
const told = new WeakSet<TLSSocket>()
const hybridGroup = 'X25519MLKEM768'
const maxSockets = 16
const longestRetryAfter = seconds(60)
const maxAnswerBytes = 1024 * 1024
const maxDepth = 32
const maxSaying = 300
