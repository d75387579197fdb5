/**
 * Calls to a vault. node-vault shapes the requests and reads the answers; the exchange itself is ours, because node-vault's own
 * follows redirects with the token in hand, takes proxies and TLS settings from the environment, and knows neither cancellation nor limits.
 */
import { request as requestHttp } from 'node:http'
import { request as requestHttps, type RequestOptions } from 'node:https'
import type { IncomingMessage } from 'node:http'
import { backoff } from '../../kernel/backoff.ts'
import { fromUtf8 } from '../../kernel/bytes.ts'
import { deadline } from '../../kernel/clock.ts'
import type { World } from '../../kernel/driver.ts'
import { seconds, type Duration } from '../../kernel/duration.ts'
import { Failure, type Category } from '../../kernel/failure.ts'
import type { Secret } from '../../kernel/log.ts'

export interface VaultSettings {
  /** Scheme, host and port. */
  readonly address: string
  readonly namespace?: string | undefined
  readonly caFile?: string | undefined
  readonly dangerouslySkipTlsVerification: boolean
  readonly timeout: Duration
}

export interface VaultClient {
  /**
   * POSTs to a path given by its segments. What may pass is tried again a few times; what is refused is not.
   * @throws Failure `upstream.bad-request`, `upstream.permission-denied`, `upstream.not-found`, `upstream.redirected`, `upstream.busy`,
   *   `upstream.unavailable`, `upstream.unreachable`, `upstream.timeout`, `upstream.answer-too-long`, `upstream.malformed-answer`
   */
  write(path: readonly string[], body: Readonly<Record<string, unknown>>, signal: AbortSignal): Promise<unknown>
}

/** A client for one token. */
export async function connectVault(settings: VaultSettings, token: Secret, world: World): Promise<VaultClient> {
  const { default: nodeVault } = await import('node-vault')
  const ca = settings.caFile === undefined ? undefined : await readCa(settings.caFile, world)
  const client = nodeVault({
    endpoint: settings.address,
    token: token.reveal(),
    // Its own would write tokens and requests to standard error when DEBUG is set (V-15).
    debug() {},
    'request-promise': { defaults: () => (options: Asked) => exchange(options, settings, ca) },
  })
  // Left to itself it takes these from the environment (V-16).
  Object.assign(client, { namespace: settings.namespace ?? '', pathPrefix: '' })

  return {
    async write(path, body, signal) {
      const pauses = backoff(world.random, retries)
      for (;;) {
        const heard: Heard = {}
        try {
          return (await client.write(path.join('/'), body, { heard, signal: deadline(settings.timeout, signal) })) as unknown
        } catch (error) {
          signal.throwIfAborted()
          const failure = explain(error, path, settings, token)
          const pause = retriable.has(failure.reason) ? pauses.next().value : undefined
          if (pause === undefined) throw failure
          world.log.warn('a call to the vault is tried again', { reason: failure.reason, path: path.join('/') })
          await world.clock.sleep(Math.max(pause, heard.retryAfter ?? 0), signal)
        }
      }
    },
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
}

/** What an answer said beside its body. */
interface Heard {
  retryAfter?: Duration
}

interface Answer {
  readonly statusCode: number
  readonly body: unknown
  readonly request: { readonly path: string }
}

function exchange({ method, uri, headers, json, heard, signal }: Asked, settings: VaultSettings, ca: string | undefined): Promise<Answer> {
  const url = new URL(uri)
  const body = json === undefined ? undefined : Buffer.from(JSON.stringify(json), 'utf8')
  const options: RequestOptions = {
    method,
    headers: {
      ...headers,
      accept: 'application/json',
      ...(body ? { 'content-type': 'application/json', 'content-length': body.length } : {}),
    },
    agent: false,
    signal,
    minVersion: 'TLSv1.2',
    rejectUnauthorized: !settings.dangerouslySkipTlsVerification,
    ...(ca === undefined ? {} : { ca }),
  }
  return new Promise((resolve, reject) => {
    const request = (url.protocol === 'http:' ? requestHttp : requestHttps)(url, options, (response) => {
      const after = Number(response.headers['retry-after'])
      if (after > 0) heard.retryAfter = Math.min(seconds(after), longestRetryAfter)
      collect(response).then(
        (text) => resolve({ statusCode: response.statusCode ?? 0, body: readJson(text), request: { path: url.pathname } }),
        reject,
      )
    })
    request.on('error', reject)
    request.end(body)
  })
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

async function readCa(path: string, { files }: World): Promise<string> {
  const content = await files.read(path)
  if (!content) throw failed('failed_precondition', 'ca-file-missing', `there is no file \`${path}\`: expected the CAs of the vault in PEM`)
  return fromUtf8(content)
}

/** What went wrong, in words for whoever is called at night; no token and no request is in it. */
function explain(error: unknown, path: readonly string[], settings: VaultSettings, token: Secret): Failure {
  if (error instanceof Failure) return error
  const place = `\`${path.join('/')}\` of the vault at \`${settings.address}\``
  const answer = answerIn(error)
  if (!answer) return unanswered(error, settings)
  const said = saying(answer.body, token)
  const row = answers.find(({ statuses }) => statuses(answer.statusCode)) ?? answers.at(-1)!
  return failed(row.category, row.reason, `${row.tell(place, path)} (status ${answer.statusCode}${said === '' ? '' : `: ${said}`})`)
}

function answerIn(error: unknown): { readonly statusCode: number; readonly body: unknown } | undefined {
  const response = typeof error === 'object' && error !== null && 'response' in error ? error.response : undefined
  return typeof response === 'object' && response !== null && 'statusCode' in response && typeof response.statusCode === 'number'
    ? { statusCode: response.statusCode, body: 'body' in response ? response.body : undefined }
    : undefined
}

function unanswered(error: unknown, { address, timeout }: VaultSettings): Failure {
  const name = error instanceof Error ? error.name : ''
  if (name === 'AbortError' || name === 'TimeoutError')
    return failed('deadline_exceeded', 'timeout', `the vault at \`${address}\` did not answer within ${timeout / 1000} s`)
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'no code'
  return failed('unavailable', 'unreachable', `the vault at \`${address}\` cannot be reached (${code})`)
}

/** The vault's own words, on one line, and without the token should they repeat it. */
function saying(body: unknown, token: Secret): string {
  const errors: unknown = typeof body === 'object' && body !== null && 'errors' in body ? body.errors : undefined
  const texts = Array.isArray(errors) ? errors.filter((one) => typeof one === 'string') : []
  return texts
    .join('; ')
    .replaceAll(token.reveal(), '[secret]')
    .replace(/[\p{Cc}]+/gu, ' ')
    .trim()
    .slice(0, maxSaying)
}

interface AnswerRow {
  readonly statuses: (status: number) => boolean
  readonly category: Category
  readonly reason: string
  readonly tell: (place: string, path: readonly string[]) => string
}

/** One row a kind of refusal; the first that fits counts, the last is for all others. */
const answers: readonly AnswerRow[] = [
  {
    statuses: (status) => status === 400,
    category: 'failed_precondition',
    reason: 'bad-request',
    tell: (place) => `${place} refused to sign our CA`,
  },
  {
    statuses: (status) => status === 401 || status === 403,
    category: 'permission_denied',
    reason: 'permission-denied',
    tell: (place, path) =>
      `${place} denied us: the token is wrong or has ended, or its policy lacks \`path "${path.join('/')}" { capabilities = ["update"] }\``,
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
  { statuses: () => true, category: 'unavailable', reason: 'unavailable', tell: (place) => `${place} is sealed, in standby or broken` },
]

function failed(category: Category, what: string, text: string): Failure {
  return new Failure(category, `upstream.${what}`, { public: text })
}

const retriable: ReadonlySet<string> = new Set(['upstream.busy', 'upstream.unavailable', 'upstream.unreachable', 'upstream.timeout'])
/** Within one rotation step; the rotation itself goes on trying (V-9). */
const retries = { first: 250, longest: seconds(5), tries: 3 }
const longestRetryAfter = seconds(20)
const maxAnswerBytes = 1024 * 1024
const maxDepth = 32
const maxSaying = 300
