/** The pieces that both configurations are made of. */
import { z } from 'zod'
import { parsed } from '../../cli/flags.ts'
import { listed, wording } from '../../cli/wording.ts'
import { formatDuration, minutes, parseDuration, seconds, type Duration } from '../../kernel/duration.ts'
import { Failure } from '../../kernel/failure.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { parseTrustDomain } from '../../spiffe/trust-domain.ts'
import { parseEndpoint } from '../../workload-client/endpoint.ts'
import { knownKeys, nearest, unknownKey } from './load.ts'

export const trustDomain = parsed(parseTrustDomain)
export const spiffeId = parsed(parseSpiffeId)

/** A duration between two bounds, both included. */
export function durationBetween(least: Duration, most: Duration): z.ZodType<Duration, string> {
  return parsed((text) => {
    const duration = parseDuration(text)
    if (duration >= least && duration <= most) return duration
    throw new Failure('invalid_argument', 'config.out-of-range', {
      public: `\`${text}\` is out of range: expected ${formatDuration(least)} to ${formatDuration(most)}`,
    })
  }, 'a duration with its unit, for example `90s` or `1h30m`')
}

/** The channel between agents and servers. */
export const tls = z
  .strictObject({
    /** Without X25519MLKEM768 there is no connection (C-32). */
    requirePostQuantum: z.boolean().default(false),
  })
  .prefault({})

/** A path for a socket file: unix(7) has room for 107 bytes. */
export const socketPath = parsed(readSocketPath)

/**
 * Where workloads connect: a path, or the same as a Workload API address. TCP is refused for as long as no workload attestor can tell
 * who is calling over it (SPIFFE Workload Endpoint section 3; EP-3).
 */
export const workloadSocketPath = parsed((address) => {
  if (!/^[A-Za-z][A-Za-z0-9+.-]*:/.test(address)) return readSocketPath(address)
  const endpoint = parseEndpoint(address)
  if (endpoint.scheme === 'unix') return readSocketPath(endpoint.path)
  throw new Failure('invalid_argument', 'config.tcp-socket', {
    public: `\`${address}\` is a TCP address: the kernel says who is calling over a Unix socket alone, and no workload attestor can tell it over TCP`,
  })
})

function readSocketPath(path: string): string {
  const bytes = Buffer.byteLength(path)
  if (path !== '' && bytes <= 107) return path
  throw new Failure('invalid_argument', 'config.socket-path', {
    public: path === '' ? 'is empty' : `\`${path}\` has ${bytes} bytes: the path of a socket has at most 107`,
  })
}

export const log = z
  .strictObject({ level: z.enum(['debug', 'info', 'warn', 'error']).default('info'), format: z.enum(['text', 'json']).default('text') })
  .prefault({})

/** Who is shown what was counted: nobody where it is left out. */
export const metrics = z
  .strictObject({
    /** Answers `GET /metrics`, without TLS and to whoever reaches the address. */
    prometheus: z
      .strictObject({
        host: z.string().min(1).default('127.0.0.1'),
        port: z.int().min(0).max(65_535),
      })
      .optional(),
    /** Sends them to an OpenTelemetry collector, OTLP over HTTP in JSON. */
    otlp: z
      .strictObject({
        endpoint: parsed(readEndpoint),
        interval: durationBetween(seconds(1), minutes(10)).prefault('1m'),
      })
      .optional(),
  })
  .prefault({})

export type MetricsConfig = z.infer<typeof metrics>

function readEndpoint(text: string): string {
  const url = URL.parse(text)
  const problem =
    !url || !['http:', 'https:'].includes(url.protocol)
      ? 'expected a URL, `http://HOST:4318/v1/metrics` for example'
      : url.username !== '' || url.password !== ''
        ? 'secrets are not written into the configuration: expected a URL without a user'
        : undefined
  if (problem === undefined) return url!.href
  throw new Failure('invalid_argument', 'config.endpoint', { public: problem })
}

/** A driver together with its configuration, ready to be opened. */
export interface Chosen<Port, World> {
  readonly kind: string
  readonly open: (world: World) => Promise<Port>
  /** As meant, for `config print`. */
  readonly settings: unknown
}

/** `{ kind: …, … }`: one of these drivers with its own settings. A wrong kind is told with the choices. */
export function oneOf<Port, World>(
  drivers: readonly { readonly kind: string; readonly config: z.ZodType<unknown>; open(config: never, world: World): Promise<Port> }[],
): z.ZodType<Chosen<Port, World>, unknown> {
  return z.looseObject({ kind: z.string() }).transform((written, context) => {
    const { kind, ...rest } = written
    const driver = drivers.find((one) => one.kind === kind)
    if (!driver) {
      const kinds = drivers.map((one) => one.kind)
      const near = nearest(kind, kinds)
      context.addIssue({
        code: 'custom',
        path: ['kind'],
        message: `unknown kind \`${kind}\`: ${near ? `did you mean \`${near}\`?` : `expected ${kinds.length > 1 ? 'one of ' : ''}${listed(kinds)}`}`,
      })
      return z.NEVER
    }
    const settings = driver.config.safeParse(rest, { error: wording })
    if (!settings.success) {
      for (const issue of settings.error.issues) tell(issue, driver.config, context)
      return z.NEVER
    }
    return { kind, settings: settings.data, open: (world: World) => driver.open(settings.data as never, world) }
  })
}

/** The issues of a driver's settings, as ours. */
function tell(issue: z.core.$ZodIssue, config: z.ZodType, context: z.RefinementCtx): void {
  const { path, message } = issue
  if (issue.code !== 'unrecognized_keys') return context.addIssue({ code: 'custom', path: [...path], message })
  const known = path.length === 0 ? ['kind', ...knownKeys(config, path)] : knownKeys(config, path)
  for (const key of issue.keys)
    context.addIssue({ code: 'custom', path: [...path, key], message: unknownKey(key, known), params: { unknownKey: true } })
}
