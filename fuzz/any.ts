import { create, toBinary } from '@bufbuild/protobuf'
import { AnySchema, anyPack } from '@bufbuild/protobuf/wkt'
import { Failure } from '../src/kernel/failure.ts'
import { StatusSchema } from '../src/rpc/gen/google/rpc/status_pb.ts'
import { detailsOf, fromWireStatus, toWireStatus } from '../src/rpc/status.ts'
import { promise, type Target } from './target.ts'

export const any: Target = {
  name: 'any',
  about: 'the details of a refused call, a list of proto `Any`',
  words: ['type.googleapis.com/google.rpc.Status', '\x08\x05', '\x12\x00', '\x1a\x00', '\x0b', '\x0c', '\xff\xff\xff\xff\x0f'],
  async seeds() {
    const inner = create(StatusSchema, {
      code: 5,
      message: 'not found',
      details: [create(AnySchema, { typeUrl: 'x/y', value: Uint8Array.of(1) })],
    })
    const outer = create(StatusSchema, {
      code: 3,
      message: 'bad',
      details: [anyPack(StatusSchema, inner), anyPack(StatusSchema, outerless)],
    })
    return [inner, outer, outerless].map((status) => toBinary(StatusSchema, status))
  },
  feed(input) {
    const failure = fromWireStatus({ code: 5, text: 'not found', details: input })
    promise(failure instanceof Failure && failure.category === 'not_found', 'a status is a refusal, whatever its details')
    const details = detailsOf(failure)
    const { details: written } = toWireStatus(failure, details)
    promise(details.length === 0 || written !== undefined, 'details can be passed on')
    for (const { typeUrl, value } of details) promise(typeof typeUrl === 'string' && value instanceof Uint8Array, 'each detail is an Any')
  },
}

const outerless = create(StatusSchema, {})
