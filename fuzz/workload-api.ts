import { create, type DescMessage, type DescMethod, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import { concat } from '../src/kernel/bytes.ts'
import { seconds } from '../src/kernel/duration.ts'
import { Failure } from '../src/kernel/failure.ts'
import { type Log, silentLog } from '../src/kernel/log.ts'
import type { Channel } from '../src/rpc/client.ts'
import { SpiffeWorkloadAPI } from '../src/rpc/gen/spiffe/workload/workload_pb.ts'
import { connectInMemory } from '../src/rpc/in-memory.ts'
import { requireSecurityHeader } from '../src/workload-api/security-header.ts'
import { workloadApi } from '../src/workload-api/service.ts'
import { fakeProcess, type Rig, startAgent } from '../test/agent/rig.ts'
import { promise, type Target } from './target.ts'

const { fetchX509SVID, fetchJWTSVID, validateJWTSVID, fetchWITSVID } = SpiffeWorkloadAPI.method

/** An input is a call: one byte for the method and the caller, and the bytes of the request. */
export const workloadApiRequest: Target = {
  name: 'workload-api',
  about: 'requests of the Workload API, from the bytes to the answer of an agent',
  words: [
    '\x0a\x02db',
    '\x12\x00',
    'spiffe://example.org/web',
    'spiffe://',
    'eyJ',
    '.',
    '\xff\xff\xff\xff\x0f',
    '\x0b',
    '\x0c',
    '\xc0\x80',
  ],
  async seeds() {
    rig = await startAgent({ witSvid: true })
    rig.server.add('/web', ['test:name:web'])
    await rig.clock.advance(seconds(5))
    channels = ['web', 'stranger'].map((name) =>
      connectInMemory({
        services: [workloadApi(rig!.agent)],
        peer: fakeProcess(`test:name:${name}`),
        log,
        wrap: requireSecurityHeader,
      }),
    )
    const asked = request(fetchJWTSVID, { audience: ['db'] })
    const { svids } = fromBinary(fetchJWTSVID.output, await firstAnswer(channels[0]!, fetchJWTSVID, asked.subarray(1)))
    issued.add(svids[0]!.svid)
    return [
      ...SpiffeWorkloadAPI.methods.filter(({ methodKind }) => methodKind === 'server_streaming').map((method) => request(method, {})),
      asked,
      request(fetchJWTSVID, { audience: ['db', 'mail'], spiffeId: 'spiffe://example.org/web' }),
      request(fetchWITSVID, { spiffeId: 'spiffe://example.org/web' }),
      request(validateJWTSVID, { audience: 'db', svid: svids[0]!.svid }),
    ]
  },
  async feed(input) {
    const { methods } = SpiffeWorkloadAPI
    const method = methods[(input[0] ?? 0) % methods.length]!
    const stranger = (input[0] ?? 0) >= 0x80
    const bytes = input.subarray(1)
    const answer = await firstAnswer(channels[stranger ? 1 : 0]!, method, bytes).catch((error: unknown) => {
      // What a handler throws by mistake arrives as a Failure as well, and calls itself internal.
      promise(error instanceof Failure && error.category !== 'internal', 'a call is refused for what is wrong with it')
      throw new Failure(error.category, heard ?? error.reason, { public: error.message })
    })
    promise(!stranger, 'who has no identity is told nothing')
    promise(answer.length > 0 && fromBinary(method.output, answer).$typeName === method.output.typeName, 'an answer can be read')
    if (method.localName === validateJWTSVID.localName)
      promise(issued.has(fromBinary(validateJWTSVID.input, bytes).svid), 'only what was issued is valid, letter by letter')
    else if (method.localName === fetchX509SVID.localName)
      promise(fromBinary(fetchX509SVID.output, answer).svids.length === 1, 'nobody gets more identities than he has')
  },
  async close() {
    await Promise.all(channels.map((channel) => channel[Symbol.asyncDispose]()))
    await rig?.[Symbol.asyncDispose]()
    rig = undefined
  },
}

function request<I extends DescMessage>(method: DescMethod & { readonly input: I }, content: MessageInitShape<I>): Uint8Array {
  return concat([Uint8Array.of(SpiffeWorkloadAPI.methods.indexOf(method)), toBinary(method.input, create(method.input, content))])
}

async function firstAnswer(channel: Channel, method: DescMethod, bytes: Uint8Array): Promise<Uint8Array> {
  const call = channel.start(method, { metadata: { 'workload.spiffe.io': 'true' } })
  try {
    await call.send(bytes)
    call.end()
    const { value } = await call.responses.next()
    promise(value instanceof Uint8Array, 'a call is answered or refused')
    return value
  } finally {
    call.cancel()
    await call.responses.return()
  }
}

/** A status has no reason; what the operator reads has. */
const log: Log = {
  ...silentLog,
  info(_message, fields) {
    if (typeof fields?.['reason'] === 'string') heard = fields['reason']
  },
}
let heard: string | undefined
let rig: Rig | undefined
let channels: readonly Channel[] = []
const issued = new Set<string>()
