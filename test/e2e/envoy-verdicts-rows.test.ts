import { X509Certificate } from 'node:crypto'
import { createRequire } from 'node:module'
import path from 'node:path'
import { Metadata } from '@grpc/grpc-js'
import { type CryptoKey, exportJWK, generateKeyPair, type JWTPayload, SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { HeldIdentity } from '../../src/agent/identities.ts'
import { filterChain } from '../../src/authz/filter-chain.ts'
import { rulesJson } from '../../src/authz/messages.ts'
import { rbacRules, type RbacRules } from '../../src/authz/rbac.ts'
import { applyAll, seenByProxy, type ProxyRequest } from '../../src/authz/rbac-interpreter.ts'
import { compileFor, type CompiledPolicies } from '../../src/policy/compile.ts'
import type { Decision } from '../../src/policy/decision.ts'
import { decide } from '../../src/policy/evaluate.ts'
import { parsePolicySet } from '../../src/policy/language.ts'
import { mtlsAt } from '../../src/policy/mtls.ts'
import type { PolicyMode } from '../../src/policy/policy-set.ts'
import { headerValues, type PolicyRequest } from '../../src/policy/request.ts'
import { Authorization } from '../../src/rpc/gen/envoy/service/auth/v3/auth_pb.ts'
import { mount } from '../../src/rpc/handler.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseSelector } from '../../src/spiffe/selector.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { oid } from '../../src/x509/oid.ts'
import { serveAgent } from '../sds/envoy-agent.ts'
import { heldIdentity, localAgent, type LocalAgent } from '../sds/local-agent.ts'
import { coveringRequests } from '../support/covering.ts'
import { describeWithPeer } from '../support/peers.ts'
import { type EnforcedSet, freePorts, httpListeners, metadataFilter, type RuleEnvoy, startRuleEnvoy } from '../support/rule-envoy.ts'
import { type Caller, callers, type Row, rows, type Sent, tokensFrom } from './policy-rows.ts'

// Every row of authorization.md section 1, judged four times: by the evaluator, by our reading of the compiled rules, by the one of
// @grpc/grpc-js-xds where it knows all that is in them, and by a real Envoy; first as the table says, then on requests that cover every class of every atom.

describeWithPeer('envoy', 'a real Envoy, the evaluator and two readers of RBAC', ({ path: binary }) => {
  let bench: Bench
  beforeAll(async () => void (bench = await startBench(binary)), 60_000)
  afterAll(async () => {
    await bench?.[Symbol.asyncDispose]()
    if (bench) console.log(`envoy verdicts: ${bench.told()}`)
  })

  for (const mode of ['strict', 'istio'] as const) {
    describe(`in ${mode} mode`, () => {
      for (const row of rows.filter(({ modes }) => modes.includes(mode))) {
        test(row.name, async () => {
          const one = bench.of(row, mode)
          const wrong: string[] = []
          for (const [sent, answer] of row.answers) {
            const expected = typeof answer === 'boolean' ? answer : answer[mode]
            const judged = await bench.judge(one, sent)
            if (Object.values(judged.verdicts).some((verdict) => verdict !== expected)) {
              wrong.push(`${JSON.stringify(sent)}: expected ${expected}, found ${JSON.stringify(judged)}`)
            }
          }
          for (const sent of coveringRequests(one.compiled, callers, mostRequests)) {
            const judged = await bench.judge(one, sent)
            if (new Set(Object.values(judged.verdicts)).size > 1) wrong.push(`${JSON.stringify(sent)}: ${JSON.stringify(judged)}`)
          }
          expect(wrong).toEqual([])
        })
      }
    })
  }
})

/** Enough for every class of the rows here. */
const mostRequests = 150

interface Prepared extends EnforcedSet {
  readonly row: Row
  readonly compiled: CompiledPolicies
  readonly rules: Readonly<Record<'http' | 'tcp', RbacRules>>
}

interface Judged {
  readonly reason: string
  readonly verdicts: Readonly<Partial<Record<'evaluator' | 'interpreter' | 'grpc' | 'envoy' | 'audited', boolean>>>
}

interface Bench extends AsyncDisposable {
  of(row: Row, mode: PolicyMode): Prepared
  judge(one: Prepared, sent: Sent): Promise<Judged>
  told(): string
}

async function startBench(binary: string): Promise<Bench> {
  await using owned = new AsyncDisposableStack()
  const local = await localAgent()
  const { privateKey, publicKey } = await generateKeyPair('ES256')
  const jwks = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k', alg: 'ES256' }] })
  const workload = await local.workload(7, ['spiffe://example.org/ns/shop/sa/server'])
  const provider = mount(Authorization, {
    async check({ attributes }) {
      const allowed = attributes?.request?.http?.headers['x-provider'] === 'allowed'
      return {
        status: { code: allowed ? 0 : 7 },
        httpResponse: allowed ? { case: 'okResponse', value: {} } : { case: 'deniedResponse', value: {} },
      }
    },
  })
  const socket = owned.use(await serveAgent(workload, [provider]))
  const ports = await freePorts(rows.reduce((sum, { alone, modes }) => sum + (alone ? modes.length : 0), 0))
  const prepared = rows.flatMap((row, index) =>
    row.modes.map((mode) => prepare(row, mode, { id: `${mode}-${index}`, jwks, port: row.alone && ports.pop()! })),
  )
  const httpPorts = await freePorts(httpListeners.length)
  const envoy = owned.use(await startRuleEnvoy(binary, { local, sets: prepared, httpPorts, agentSocket: socket.path }))
  const clients = await identities(local)
  const counts = { requests: 0, connections: 0, grpc: 0, unanswered: 0, disagreements: 0 }
  const open = owned.move()
  return {
    of: (row, mode) => prepared.find((one) => one.row === row && one.mode === mode)!,
    async judge(one, sent) {
      const client = clients[sent.caller ?? 'web']
      const token = await tokenOf(sent, privateKey)
      const judged = await judge({ envoy, client, token, counts }, one, sent)
      if (new Set(Object.values(judged.verdicts)).size > 1) counts.disagreements++
      return judged
    },
    told: () =>
      `${prepared.length} policy sets, ${counts.requests} requests and ${counts.connections} connections, ${counts.grpc} of them judged by grpc-js-xds as well, ${counts.unanswered} answered 400 by the proxy before any filter, ${counts.disagreements} disagreements`,
    [Symbol.asyncDispose]: () => open[Symbol.asyncDispose](),
  }
}

async function tokenOf({ token, badToken }: Sent, key: CryptoKey): Promise<string | undefined> {
  const sign = (claims: JWTPayload, expires: string) =>
    new SignJWT(claims).setProtectedHeader({ alg: 'ES256', kid: 'k' }).setExpirationTime(expires).sign(key)
  if (token) return sign(token, '1h')
  const claims = { iss: 'https://issuer.test', sub: 'alice' }
  switch (badToken) {
    case undefined:
      return undefined
    case 'expired':
      return sign(claims, '2 hours ago')
    case 'forged':
      return (await sign(claims, '1h')).replace(/.{20}$/, 'A'.repeat(20))
    case 'garbage':
      return 'e30.e30.e30'
    default:
      throw new Error(`bug: ${JSON.stringify(badToken satisfies never)}`)
  }
}

/** Where a token stands in a request: its header, or what its path gets. */
function carrying(
  token: string | undefined,
  place: Sent['tokenIn'],
): { readonly header?: readonly [string, string]; readonly query?: string } {
  if (token === undefined) return {}
  switch (place) {
    case undefined:
      return { header: ['authorization', `Bearer ${token}`] }
    case 'x-token':
      return { header: ['x-token', `Token ${token}`] }
    case 'unread':
      return { header: ['x-unread', `Bearer ${token}`] }
    case 'cookie':
      return { header: ['cookie', `a=b; session=${token}`] }
    case 'access_token':
    case 'tok':
      return { query: `?${place}=${token}` }
    default:
      throw new Error(`bug: ${JSON.stringify(place satisfies never)}`)
  }
}

function prepare(
  row: Row,
  mode: PolicyMode,
  { id, jwks, port }: { readonly id: string; readonly jwks: string; readonly port: number | undefined },
): Prepared {
  const readsTokens = /requestPrincipals|notRequestPrincipals|request\.auth/i.test(JSON.stringify(row.policies))
  const texts = row.alone ? row.alone(port!, jwks) : [...row.policies, ...(readsTokens ? [tokensFrom(jwks)] : [])]
  const aliases = (row.aliases ?? []).map((name) => parseTrustDomain(name))
  const set = parsePolicySet(
    texts.map((text, index) => ({ name: `${index}.yaml`, text })),
    { mode, trustDomainAliases: aliases },
  )
  const compiled = compileFor(set, facts, { at: Date.now() })
  const trustDomains = ['example.org', 'other.test'].map((name) => parseTrustDomain(name))
  const chain = filterChain(compiled, { trustDomains, ...(row.providers && { providers: row.providers }) })
  const rules = (point: 'http' | 'tcp') => rbacRules(compiled, { trustDomains, point, refusePlaintext: mode === 'strict' })
  const own = port === undefined ? undefined : { port, mtls: mtlsAt(compiled.mtls, port) }
  return { id, row, mode, compiled, chain, tcp: row.tcp === true, own, rules: { http: rules('http'), tcp: rules('tcp') } }
}

const facts = {
  spiffeIds: [parseSpiffeId('spiffe://example.org/ns/shop/sa/server')],
  selectors: ['k8s:ns:shop', 'k8s:pod-label:app:server'].map(parseSelector),
}

interface Judges {
  readonly envoy: RuleEnvoy
  readonly client: HeldIdentity | undefined
  readonly token: string | undefined
  readonly counts: { requests: number; connections: number; grpc: number; unanswered: number; disagreements: number }
}

async function judge({ envoy, client, token, counts }: Judges, one: Prepared, sent: Sent): Promise<Judged> {
  const from = { client, sni: client && sent.sni, sourceIp: sent.sourceIp }
  if (sent.tcp) {
    counts.connections++
    const { open, port } = await envoy.connect(one, from)
    const request = asSeen(sent, client, port, [])
    return { ...judgedBy(one, request, counts), verdicts: { ...judgedBy(one, request, counts).verdicts, envoy: open } }
  }
  const carried = carrying(token, sent.tokenIn)
  const headers = [
    ...(sent.headers ?? []),
    ...(sent.remoteIp === undefined ? [] : [['x-forwarded-for', sent.remoteIp] as const]),
    ...(sent.meta === undefined ? [] : [['x-meta', sent.meta] as const]),
    ...(sent.provider === undefined ? [] : [['x-provider', sent.provider] as const]),
    ...(carried.header ? [carried.header] : []),
  ]
  const path = `${sent.path ?? '/'}${carried.query ?? ''}`
  const lines = [
    `${sent.method ?? 'GET'} ${path} HTTP/1.1`,
    `Host: ${sent.host ?? 'shop.test'}`,
    'Content-Length: 0',
    ...headers.map(([name, value]) => `${name}: ${value}`),
  ]
  counts.requests++
  const { status, audit, port } = await envoy.ask(one, from, lines)
  const request = asSeen({ ...sent, path }, client, port, headers)
  const judged = judgedBy(one, request, counts)
  const isTaken = takes(one, client)
  if (isTaken !== (status !== 0)) throw new Error(`the listener answered ${status} to ${client ? 'mTLS' : 'plain text'}`)
  // Who is no client of a listener without TLS has no verdict.
  if (status === 400 || (!isTaken && client)) {
    counts.unanswered++
    return { reason: judged.reason, verdicts: {} }
  }
  if (![0, 200, 401, 403].includes(status)) throw new Error(`the proxy answered ${status} to ${lines.join(' | ')}`)
  // AUDIT is seen where the answer is not the filters' own.
  const marked = status === 200 && one.rules.http.audit !== undefined
  const { audited } = decide(one.compiled, request)
  if (marked && audit !== (audited !== undefined))
    throw new Error(`AUDIT: the proxy says ${audit}, the evaluator ${JSON.stringify(audited)}`)
  if (sent.badToken) return { reason: judged.reason, verdicts: { envoy: status === 200 } }
  return { ...judged, verdicts: { ...judged.verdicts, envoy: status === 200 } }
}

/** Whether a connection of this client is for the listener at all: in strict mode, and where many share one, it always is. */
const takes = ({ mode, own }: Prepared, client: HeldIdentity | undefined): boolean =>
  mode === 'strict' || !own || own.mtls === 'PERMISSIVE' || (own.mtls === 'STRICT') === (client !== undefined)

function judgedBy(one: Prepared, request: PolicyRequest, counts: Judges['counts']): Judged {
  const decision = decide(one.compiled, request)
  const rules = one.rules[request.http ? 'http' : 'tcp']
  const seen = seenByProxy(request, one.compiled.pathNormalization, one.compiled.tokens)
  const grpc = seen && isFor(one, decision) ? grpcSays(one, rules, seen) : undefined
  if (grpc !== undefined) counts.grpc++
  return {
    reason: decision.reason,
    verdicts: {
      evaluator: decision.allowed,
      ...(isFor(one, decision) && seen && { interpreter: applyAll(rules, seen, one.row.providers ? request.providers : {}).allowed }),
      ...(grpc !== undefined && { grpc }),
    },
  }
}

/** Tokens are refused by another filter than RBAC, and so is, in istio mode, plain text by the listener. */
const isFor = ({ mode }: Prepared, { reason }: Decision): boolean =>
  reason !== 'token-refused' && !(mode === 'istio' && reason === 'plaintext-refused')

function asSeen(
  sent: Sent,
  client: HeldIdentity | undefined,
  port: number,
  headers: readonly (readonly [string, string])[],
): PolicyRequest {
  return {
    ...(client && { peer: { spiffeId: client.spiffeId, names: namesOf(client) } }),
    sourceIp: sent.sourceIp ?? '127.0.0.1',
    remoteIp: sent.remoteIp ?? sent.sourceIp ?? '127.0.0.1',
    destinationIp: '127.0.0.1',
    destinationPort: port,
    ...(client && sent.sni !== undefined && { sni: sent.sni }),
    ...(sent.token && sent.tokenIn !== 'unread' && { token: { claims: sent.token } }),
    ...(sent.meta !== undefined && { filterMetadata: { [metadataFilter]: { meta: sent.meta } } }),
    // What is not asked of a provider that is known here has no answer.
    ...(sent.provider && { providers: { test: sent.provider, 'test-2': sent.provider } }),
    ...(!sent.tcp && {
      http: { method: sent.method ?? 'GET', path: sent.path ?? '/', host: sent.host ?? 'shop.test', headers: headerValues(headers) },
    }),
  }
}

async function identities(local: LocalAgent): Promise<Readonly<Record<Caller, HeldIdentity | undefined>>> {
  const id = (text: string) => parseSpiffeId(text)
  return {
    web: await heldIdentity(local.ca, id('spiffe://example.org/ns/shop/sa/web')),
    other: await heldIdentity(local.ca, id('spiffe://example.org/ns/shop/sa/other')),
    deep: await heldIdentity(local.ca, id('spiffe://example.org/ns/bar/sa/a/ns/shop/z')),
    foreign: await heldIdentity(local.foreign, id('spiffe://other.test/ns/shop/sa/web')),
    subject: await heldIdentity(local.ca, id('spiffe://example.org/ns/shop/sa/web'), {
      subject: [{ oid: oid.commonName, value: '/ns/vault/x' }],
    }),
    dns: await heldIdentity(local.ca, id('spiffe://example.org/ns/shop/sa/web'), { dnsNames: ['/ns/vault/x'] }),
    nobody: undefined,
  }
}

/** The names of a certificate in the order in which Envoy tries them. */
function namesOf({ chainPem }: HeldIdentity): readonly string[] {
  const { subjectAltName, subject } = new X509Certificate(chainPem)
  const sans = (subjectAltName ?? '').split(', ')
  const of = (kind: string) => sans.filter((san) => san.startsWith(kind)).map((san) => san.slice(kind.length))
  return [...of('URI:'), ...of('DNS:'), subject || '']
}

// The independent reader.

interface GrpcGroup {
  apply(info: object): boolean
}
interface GrpcRbac {
  parseConfig(rules: unknown): GrpcGroup
}

const require = createRequire(import.meta.url)
const grpcHome = path.join(path.dirname(require.resolve('@grpc/grpc-js-xds/package.json')), 'build', 'src')
const grpcRbac = require(path.join(grpcHome, 'rbac.js')) as GrpcRbac
// It reads protobuf with its own library, which is not ours; that one brings the common types along when it is loaded.
const fromThere = createRequire(path.join(grpcHome, 'index.js'))
const loader = '@grpc/proto-loader'
fromThere(loader)
const protobuf = fromThere(`${loader}/build/src/util`) as {
  loadProtosWithOptionsSync(
    files: readonly string[],
    options: object,
  ): { lookupType(name: string): { fromObject(json: object): object; toObject(message: object, options: object): object } }
}
const deps = (name: string) => path.join(grpcHome, '..', '..', 'deps', name)
const rulesType = protobuf
  .loadProtosWithOptionsSync(['envoy/config/rbac/v3/rbac.proto'], {
    keepCase: true,
    includeDirs: ['xds', 'envoy-api', 'protoc-gen-validate', 'googleapis'].map(deps),
  })
  .lookupType('envoy.config.rbac.v3.RBAC')

const groups = new Map<string, GrpcGroup | undefined>()

/** Undefined where there is something that gRPC does not know: tokens, typed SANs, templates, server names, conditions, repeated headers. */
function grpcSays(one: Prepared, rules: RbacRules, seen: ProxyRequest): boolean | undefined {
  // It looks at no name behind the first kind that a certificate has.
  const onlyUris = seen.names.slice(0, -1).every((name) => name.includes('://')) && !seen.names.at(-1)?.includes('/')
  if (rules.custom.size > 0 || !onlyUris || !seen.headers || [...seen.headers.values()].some((values) => values.length > 1))
    return undefined
  const verdicts = (['deny', 'allow'] as const).map((action) => {
    const own = rules[action]
    if (!own) return true
    const key = `${one.id} ${action}`
    if (!groups.has(key)) {
      const json = JSON.stringify(rulesJson(own))
      const known = !/"(?:metadata|custom|remote_ip|uri_template|requested_server_name|condition)"/.test(json)
      const message = known
        ? rulesType.toObject(
            rulesType.fromObject(JSON.parse(json.replaceAll(/"prefix_len":(\d+)/g, '"prefix_len":{"value":$1}')) as object),
            {
              longs: String,
              enums: String,
              defaults: true,
              oneofs: true,
            },
          )
        : undefined
      groups.set(key, message && grpcRbac.parseConfig(message))
    }
    return groups.get(key)?.apply(asGrpcSees(seen))
  })
  return verdicts.includes(undefined) ? undefined : verdicts.every((verdict) => verdict === true)
}

function asGrpcSees(seen: ProxyRequest): object {
  const headers = new Metadata()
  // Its own way of holding what gRPC keeps apart.
  const held = headers as unknown as { internalRepr: Map<string, string[]> }
  for (const [name, values] of seen.headers!) held.internalRepr.set(name, [...values])
  const subject = seen.names.at(-1) ?? ''
  return {
    headers,
    urlPath: seen.headers!.get(':path')![0]!.replace(/\?.*$/s, ''),
    destinationIp: seen.destinationIp,
    destinationPort: seen.destinationPort,
    sourceIp: seen.sourceIp,
    tls: seen.names.length > 0,
    peerCertificate:
      seen.names.length === 0
        ? null
        : {
            subjectaltname: seen.names
              .slice(0, -1)
              .map((name) => (name.includes('://') ? `URI:${name}` : `DNS:${name}`))
              .join(', '),
            subject: { CN: subject.replace(/^CN=/, '') },
          },
  }
}
