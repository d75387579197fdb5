/**
 * `report`: a workload without a proxy. It uses the client library as any Node service would.
 * Reads `ID METHOD URL SPIFFE-ID` from standard input, and prints one JSON line for each answer and for each change of its identity.
 */
import { request } from 'node:https'
import { createInterface } from 'node:readline'
import { exactly, mtlsAgent, openX509Source, parseSpiffeId } from '../../src/workload-client/vidimus.ts'

const say = (value: object) => process.stdout.write(`${JSON.stringify(value)}\n`)

await using source = await openX509Source()
const stop = new AbortController()
const following = (async () => {
  for await (const context of source.context.changes(stop.signal)) {
    const identity = context?.identities[0]
    say(identity ? { event: 'identity', spiffeId: identity.spiffeId, serial: identity.chain[0]?.serial } : { event: 'no-identity' })
  }
})()

for await (const line of createInterface({ input: process.stdin })) {
  const [id, method, url, peer] = line.split(' ') as [string, string, string, string]
  say({ event: 'answer', id, ...(await call(method, url, peer, id)) })
}
stop.abort()
await following

function call(method: string, url: string, peer: string, id: string): Promise<{ status: number; error?: string }> {
  return new Promise((done) => {
    try {
      const agent = mtlsAgent(source, exactly(parseSpiffeId(peer)))
      const sent = request(url, { method, agent, headers: { 'x-demo-call': id } }, (response) => {
        response.resume().once('end', () => {
          agent.destroy()
          done({ status: response.statusCode ?? 0 })
        })
      })
      sent.setTimeout(5000, () => sent.destroy(new Error('no answer within 5 s')))
      sent.once('error', (error) => done({ status: 0, error: error.message })).end()
    } catch (error) {
      done({ status: 0, error: error instanceof Error ? error.message : String(error) })
    }
  })
}
