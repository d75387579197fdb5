/**
 * A sidecar in Node, for machines where Envoy cannot be had: the same mutual TLS, the same policies, the same log lines,
 * by the client library. Its only argument is a `Sidecar` as JSON.
 */
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import { request as httpsRequest } from 'node:https'
import {
  exactly,
  mtlsAgent,
  memberOf,
  openAuthorizer,
  openX509Source,
  parseSpiffeId,
  parseTrustDomain,
  serveMtls,
} from '../../src/workload-client/vidimus.ts'
import type { Sidecar } from './envoy.ts'

const sidecar = JSON.parse(process.argv[2] ?? '{}') as Sidecar
const address = `unix://${sidecar.agentSocket}`
const source = await openX509Source({ address })
const authorizer = await openAuthorizer({ address })

const inbound = serveMtls(source, memberOf(parseTrustDomain('example.org')), (request, response) => {
  const { allowed, decidedBy } = authorizer.authorizeHttp(request)
  const rule = decidedBy[0]?.id ?? 'none'
  response.once('finish', () =>
    log(
      'inbound',
      request,
      response,
      allowed ? { details: 'via_upstream', rule } : { details: `rbac_access_denied_matched_policy[${rule}]`, rule },
    ),
  )
  if (allowed)
    forward(request, response, (headers) =>
      httpRequest({ host: '127.0.0.1', port: sidecar.servicePort, method: request.method, path: request.url, headers }),
    )
  else response.writeHead(403).end('RBAC: access denied\n')
})
inbound.listen(sidecar.inboundPort, '127.0.0.1')

for (const upstream of sidecar.upstreams) {
  const peer = exactly(parseSpiffeId(upstream.spiffeId))
  createServer((request, response) => {
    const agent = mtlsAgent(source, peer)
    response.once('close', () => agent.destroy())
    forward(request, response, (headers) =>
      httpsRequest({ host: '127.0.0.1', port: upstream.port, agent, method: request.method, path: request.url, headers }),
    )
  }).listen(upstream.listenPort, '127.0.0.1')
}
process.stdout.write('sidecar ready\n')

function forward(
  request: IncomingMessage,
  response: ServerResponse,
  open: (headers: IncomingMessage['headers']) => ReturnType<typeof httpRequest>,
): void {
  const onward = open(request.headers)
  onward.once('response', (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers)
    answer.pipe(response)
  })
  onward.once('error', () => response.headersSent || response.writeHead(503).end())
  request.pipe(onward)
}

function log(
  listener: string,
  request: IncomingMessage,
  response: ServerResponse,
  { details, rule }: { details: string; rule: string },
): void {
  const peerSerial =
    'getPeerX509Certificate' in request.socket
      ? (request.socket as import('node:tls').TLSSocket).getPeerX509Certificate()?.serialNumber.toLowerCase()
      : ''
  const line = {
    listener,
    call: request.headers['x-demo-call'],
    code: response.statusCode,
    details,
    rbac: { enforced_effective_policy_id: rule },
    peerSerial,
  }
  process.stdout.write(`${JSON.stringify(line)}\n`)
}
