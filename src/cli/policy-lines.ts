/** One JSON request a line in, one JSON verdict a line out: the contract of `vidimus policy eval`, as schemas and as values of the policy room. */
import { z } from 'zod'
import { parseInstant, type Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import type { WorkloadFacts } from '../policy/compile.ts'
import type { DecidingRule, Decision } from '../policy/decision.ts'
import { headerValues, type PolicyRequest } from '../policy/request.ts'
import { parseSpiffeId, type SpiffeId } from '../spiffe/id.ts'
import { parseSelector, selector } from '../spiffe/selector.ts'
import { problem, wording } from './wording.ts'

const text = z.string().max(65_536)
const list = (of: z.ZodType<string>) => z.array(of).max(1000)
const port = z.int().min(0).max(65_535)

const workloadLine = z.strictObject({
  identities: list(text).optional().describe('its SPIFFE IDs'),
  namespace: text.optional().describe('the attested namespace; by default the one in its SPIFFE ID'),
  labels: z.record(text, text).optional(),
  selectors: list(text).optional().describe('what else was attested, as `type:value`'),
  ip: text.optional(),
  port: port.optional().describe('the port that it listens on'),
})

export const requestLine = z.strictObject({
  id: text.optional().describe('comes back with the verdict'),
  workload: workloadLine.describe('where the request goes'),
  peer: z
    .strictObject({
      principal: text.describe('the SPIFFE ID of a verified certificate, with or without `spiffe://`'),
      names: list(text).optional().describe('all names of the certificate as Envoy tries them: URI SANs, DNS SANs, subject'),
    })
    .optional()
    .describe('left out: no mTLS'),
  directIp: text.optional().describe('the physical peer'),
  remoteIp: text.optional().describe('the client behind trusted proxies; by default the physical peer'),
  sni: text.optional(),
  protocol: z.enum(['http', 'tcp']).default('http'),
  method: text.optional(),
  host: text.optional(),
  path: text.optional().describe('as sent, with its query'),
  headers: z.record(text, list(text)).optional().describe('by name; a header that was sent twice has two values'),
  claims: z.record(text, z.json()).optional().describe("of the end user's verified token, `iss` and `sub` among them"),
  metadata: z.record(text, z.record(text, z.json())).optional().describe('what other filters said, by filter and key'),
  providers: z
    .record(text, z.enum(['allowed', 'denied']))
    .optional()
    .describe('what the providers of CUSTOM policies answered'),
  at: text.optional().describe('the moment, RFC 3339; by default now'),
})
export type RequestLine = z.infer<typeof requestLine>

const rule = z.strictObject({ id: text, policy: text, rule: z.int() })
const decided = {
  decision: z.enum(['allow', 'deny']),
  reason: text,
  rules: z.array(rule).describe('the rules that decided; none where the absence of one did'),
}

export const verdictLine = z.union([
  z.strictObject({
    line: z.int(),
    id: text.optional(),
    ...decided,
    audited: z.array(rule).optional().describe('AUDIT rules that match'),
    dryRun: z.strictObject(decided).optional().describe('the decision if the policies on dry run were enforced'),
    errors: z.array(text),
  }),
  z.strictObject({ line: z.int(), error: text.describe('what is wrong with the line; it was not decided') }),
])
export type VerdictLine = z.infer<typeof verdictLine>

/** What a line asks. */
export interface Question {
  readonly id?: string
  readonly workload: WorkloadFacts
  readonly request: PolicyRequest
  readonly at?: Instant
}

/** Reads a workload as `workload` of a request has it, and the port that it listens on. @throws Failure `usage.request` */
export function parseWorkloadLine(line: string): WorkloadFacts & { readonly port?: number } {
  if (line.length > maxLine) throw wrong(`the line has ${line.length} characters: at most ${maxLine}`)
  const read = workloadLine.safeParse(parsedJson(line), { error: wording })
  if (!read.success) throw wrong(read.error.issues.map(({ path, message }) => problem(path.join('.') || 'the line', message)).join('; '))
  return { ...factsOf(read.data), ...(read.data.port === undefined ? {} : { port: read.data.port }) }
}

function factsOf({ identities = [], namespace, labels = {}, selectors = [] }: z.infer<typeof workloadLine>): WorkloadFacts {
  return {
    spiffeIds: identities.map(parseSpiffeId),
    selectors: [
      ...(namespace === undefined ? [] : [selector('k8s', `ns:${namespace}`)]),
      ...Object.entries(labels).map(([key, value]) => selector('k8s', `pod-label:${key}:${value}`)),
      ...selectors.map(parseSelector),
    ],
  }
}

/** Reads a line. @throws Failure `usage.request` */
export function parseRequestLine(line: string): Question {
  if (line.length > maxLine) throw wrong(`the line has ${line.length} characters: at most ${maxLine}`)
  const json = parsedJson(line)
  const read = requestLine.safeParse(json, { error: wording })
  if (!read.success) throw wrong(read.error.issues.map(({ path, message }) => problem(path.join('.') || 'the line', message)).join('; '))
  const { id, workload, peer, at } = read.data
  const moment = at === undefined ? undefined : parseInstant(at)
  if (at !== undefined && moment === undefined)
    throw wrong(`\`at\`: expected a moment, \`2030-12-31T18:00:00Z\`, found \`${at.slice(0, 80)}\``)
  return {
    ...(id === undefined ? {} : { id }),
    workload: factsOf(workload),
    request: requestOf(read.data, peer && { spiffeId: idOf(peer.principal), ...(peer.names && { names: peer.names }) }),
    ...(moment === undefined ? {} : { at: moment }),
  }
}

function requestOf(line: RequestLine, peer: PolicyRequest['peer']): PolicyRequest {
  const { workload, directIp, remoteIp, sni, protocol, method, host, path, headers, claims, metadata, providers } = line
  if (protocol === 'tcp') {
    const said = Object.entries({ method, host, path, headers, claims }).find(([, value]) => value !== undefined)
    if (said) throw wrong(`\`${said[0]}\`: a connection of \`tcp\` has none`)
  } else if (method === undefined || path === undefined || host === undefined) {
    throw wrong('a request of `http` has `method`, `host` and `path`; for a connection say `"protocol": "tcp"`')
  }
  const lines = Object.entries(headers ?? {}).flatMap(([name, values]) => values.map((value) => [name, value] as const))
  return {
    ...(peer && { peer }),
    ...(directIp === undefined ? {} : { sourceIp: directIp }),
    ...(remoteIp === undefined ? {} : { remoteIp }),
    ...(workload.ip === undefined ? {} : { destinationIp: workload.ip }),
    ...(workload.port === undefined ? {} : { destinationPort: workload.port }),
    ...(sni === undefined ? {} : { sni }),
    ...(claims && { token: { claims } }),
    ...(metadata && { filterMetadata: metadata }),
    ...(providers && { providers }),
    ...(protocol === 'http' && { http: { method: method!, host: host!, path: path!, headers: headerValues(lines) } }),
  }
}

/** A decision as a line; `candidate` is the one with the policies on dry run. */
export function toVerdictLine(line: number, { id }: Pick<Question, 'id'>, decision: Decision, candidate?: Decision): VerdictLine {
  return {
    line,
    ...(id === undefined ? {} : { id }),
    ...toDecided(decision),
    ...(decision.audited && { audited: decision.audited.map(toRule) }),
    ...(candidate && { dryRun: toDecided(candidate) }),
    errors: [...decision.errors],
  }
}

const toDecided = ({ allowed, reason, decidedBy }: Decision) => ({
  decision: allowed ? ('allow' as const) : ('deny' as const),
  reason,
  rules: decidedBy.map(toRule),
})
const toRule = ({ id, policy, rule: index }: DecidingRule) => ({ id, policy, rule: index })

function idOf(name: string): SpiffeId {
  return parseSpiffeId(name.includes('://') ? name : `spiffe://${name}`)
}

function parsedJson(line: string): unknown {
  try {
    return JSON.parse(line) as unknown
  } catch {
    throw wrong('the line is no JSON')
  }
}

const wrong = (what: string): Failure => new Failure('invalid_argument', 'usage.request', { public: what })

/** A request with all of its headers and claims is far below. */
const maxLine = 1_048_576
