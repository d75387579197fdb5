/** Where the Workload API is: SPIFFE Workload Endpoint section 4. */
import { Failure } from '../kernel/failure.ts'

/**
 * The path of the agent's socket, from an address or, without one, from `SPIFFE_ENDPOINT_SOCKET` (EP-6).
 * @throws Failure `endpoint.missing`, `endpoint.malformed` (EP-7, EP-8), `endpoint.tcp`
 */
export function endpointPath(address = process.env['SPIFFE_ENDPOINT_SOCKET']): string {
  if (address === undefined || address === '') {
    throw refused(
      'missing',
      'no Workload API address: pass one, or set `SPIFFE_ENDPOINT_SOCKET`, for example to `unix:///run/vidimus/agent/public/api.sock`',
    )
  }
  if (address.startsWith('tcp:')) throw refused('tcp', `\`${address}\` is a TCP address: this client speaks to Unix sockets only`)
  // `unix:///path` or `unix:/path`: no authority, no query, no fragment (EP-9).
  const path = /^unix:(?:\/\/)?(\/[^/?#][^?#]*)$/.exec(address)?.[1]
  if (path === undefined) throw refused('malformed', `\`${address}\` is not a Workload API address: expected \`unix:///absolute/path\``)
  return path
}

function refused(what: string, text: string): Failure {
  return new Failure('invalid_argument', `endpoint.${what}`, { public: text })
}
