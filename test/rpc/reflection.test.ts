import { fromBinary } from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt'
import { describe, expect, test } from 'vitest'
import { silentLog } from '../../src/kernel/log.ts'
import { WatchedValue } from '../../src/kernel/watched.ts'
import { clientOf } from '../../src/rpc/client.ts'
import { ServerReflection } from '../../src/rpc/gen/grpc/reflection/v1/reflection_pb.ts'
import { ServerReflection as ServerReflectionAlpha } from '../../src/rpc/gen/grpc/reflection/v1alpha/reflection_pb.ts'
import { SpiffeWorkloadAPI } from '../../src/rpc/gen/spiffe/workload/workload_pb.ts'
import { mount } from '../../src/rpc/handler.ts'
import { health } from '../../src/rpc/health.ts'
import { connectInMemory } from '../../src/rpc/in-memory.ts'
import { reflection } from '../../src/rpc/reflection.ts'

const served = [
  health<string>(new WatchedValue({ serving: true })),
  mount<typeof SpiffeWorkloadAPI, string>(SpiffeWorkloadAPI, {
    fetchX509SVID: async function* () {},
    fetchX509Bundles: async function* () {},
    fetchJWTSVID: async () => ({}),
    fetchJWTBundles: async function* () {},
    validateJWTSVID: async () => ({}),
    fetchWITSVID: async function* () {},
    fetchWITBundles: async function* () {},
  }),
]
const channel = connectInMemory({ services: reflection(served), peer: 'caller', log: silentLog })

describe.each([
  ['v1', () => clientOf(ServerReflection, channel).serverReflectionInfo()],
  ['v1alpha', () => clientOf(ServerReflectionAlpha, channel).serverReflectionInfo()],
])('EP-18 server reflection %s', (_version, open) => {
  type Question = Parameters<ReturnType<typeof open>['send']>[0]['messageRequest']

  /** The answers to questions that are asked on one stream. */
  async function ask(...questions: readonly NonNullable<Question>[]) {
    const { send, end, responses } = open()
    const answers = []
    for (const messageRequest of questions) {
      await send({ host: 'h', messageRequest } as never)
      const { value } = await responses.next()
      if (value) answers.push(value)
    }
    end()
    expect((await responses.next()).done).toBe(true)
    return answers
  }
  const files = (answer: Awaited<ReturnType<typeof ask>>[number] | undefined) =>
    answer?.messageResponse.case === 'fileDescriptorResponse'
      ? answer.messageResponse.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes))
      : []

  test('answers what it does not know on the stream, which goes on', async () => {
    const answers = await ask(
      { case: 'fileContainingSymbol', value: 'spire.api.server.svid.v1.SVID' },
      { case: 'fileByFilename', value: '../workload.proto' },
      { case: 'allExtensionNumbersOfType', value: 'Nothing' },
      { case: 'fileContainingExtension', value: { containingType: 'X509SVID', extensionNumber: 1 } as never },
      { case: 'fileContainingSymbol', value: '' },
    )
    for (const { messageResponse } of answers) {
      expect(messageResponse).toMatchObject({ case: 'errorResponse', value: { errorCode: 5 } })
    }
    expect(answers).toHaveLength(5)
  })

  test('finds nothing where nothing is asked', async () => {
    const [answer] = await ask({ case: undefined })
    expect(answer!.messageResponse).toMatchObject({ case: 'errorResponse', value: { errorCode: 3 } })
  })

  test('lists what the socket serves, itself as well', async () => {
    const [answer] = await ask({ case: 'listServices', value: '*' })
    expect(answer).toMatchObject({ validHost: 'h', originalRequest: { messageRequest: { case: 'listServices', value: '*' } } })
    const { messageResponse } = answer!
    expect(messageResponse.case === 'listServicesResponse' && messageResponse.value.service.map(({ name }) => name)).toEqual([
      'grpc.health.v1.Health',
      'SpiffeWorkloadAPI',
      'grpc.reflection.v1.ServerReflection',
      'grpc.reflection.v1alpha.ServerReflection',
    ])
  })

  test.each(['SpiffeWorkloadAPI', 'SpiffeWorkloadAPI.FetchX509SVID', 'X509SVIDResponse'])(
    'describes `%s` by its file, with the files that this one imports',
    async (value) => {
      const [first, ...imported] = files((await ask({ case: 'fileContainingSymbol', value }))[0])
      expect(first!.service[0]!.method.map(({ name }) => name)).toContain('FetchX509SVID')
      expect(imported.map(({ name }) => name)).toEqual(first!.dependency)
    },
  )

  test('describes a file by its name', async () => {
    const [first] = files((await ask({ case: 'fileByFilename', value: 'grpc/health/v1/health.proto' }))[0])
    expect(first).toMatchObject({ name: 'grpc/health/v1/health.proto', package: 'grpc.health.v1' })
  })

  test('knows that nothing is extended', async () => {
    const [answer] = await ask({ case: 'allExtensionNumbersOfType', value: 'X509SVID' })
    expect(answer!.messageResponse).toMatchObject({
      case: 'allExtensionNumbersResponse',
      value: { baseTypeName: 'X509SVID', extensionNumber: [] },
    })
  })
})
