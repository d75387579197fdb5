/** Where the Workload API is: SPIFFE Workload Endpoint section 4. */
import { isIP } from 'node:net'
import { Failure } from '../kernel/failure.ts'

/** A parsed address of a Workload API. */
export type Endpoint =
  | { readonly scheme: 'unix'; readonly path: string }
  /** An IP address: names would have to be resolved by somebody who is believed (EP-10). */
  | { readonly scheme: 'tcp'; readonly host: string; readonly port: number }

/**
 * The endpoint at an address or, without one, at what `SPIFFE_ENDPOINT_SOCKET` says (EP-7).
 * @throws Failure `endpoint.missing`, `endpoint.malformed`
 */
export function endpointOf(address = process.env['SPIFFE_ENDPOINT_SOCKET']): Endpoint {
  if (address !== undefined && address !== '') return parseEndpoint(address)
  throw refused(
    'missing',
    'no Workload API address: pass one, or set `SPIFFE_ENDPOINT_SOCKET`, for example to `unix:///run/vidimus/agent/public/api.sock`',
  )
}

/** The same, for callers that speak to Unix sockets alone. @throws Failure `endpoint.missing`, `endpoint.malformed`, `endpoint.tcp` */
export function endpointPath(address?: string): string {
  const endpoint = endpointOf(address)
  if (endpoint.scheme === 'unix') return endpoint.path
  throw refused('tcp', `\`${address ?? ''}\` is a TCP address: expected that of a Unix socket`)
}

/**
 * Reads `unix:///path`, `unix:/path`, `tcp://1.2.3.4:8000` or `tcp://[::1]:8000`, and nothing else (EP-8).
 * @throws Failure `endpoint.malformed`
 */
export function parseEndpoint(address: string): Endpoint {
  const path = unixAddress.exec(address)?.[1]
  if (path !== undefined) return { scheme: 'unix', path }
  const [, bracketed, bare, digits] = tcpAddress.exec(address) ?? []
  const host = bracketed ?? bare ?? ''
  const port = Number(digits)
  if (isIP(host) === (bracketed === undefined ? 4 : 6) && port >= 1 && port <= 65_535) return { scheme: 'tcp', host, port }
  throw refused(
    'malformed',
    `\`${address.slice(0, 256)}\` is not a Workload API address: expected \`unix:///absolute/path\`, or \`tcp://\` with an IP address and a port`,
  )
}

function refused(what: string, text: string): Failure {
  return new Failure('invalid_argument', `endpoint.${what}`, { public: text })
}

/** No authority, an absolute path, no query, no fragment (EP-9). */
const unixAddress = /^unix:(?:\/\/)?(\/[^/?#][^?#]*)$/
/** An IP address and a port, and nothing behind them (EP-10). */
const tcpAddress = /^tcp:\/\/(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})$/
