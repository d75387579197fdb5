/** gRPC server reflection: which services a listener serves, and what their messages look like (EP-18). */
import { type DescFile, type DescService, toBinary } from '@bufbuild/protobuf'
import { nestedTypes } from '@bufbuild/protobuf/reflect'
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt'
import { ServerReflection } from './gen/grpc/reflection/v1/reflection_pb.ts'
import { ServerReflection as ServerReflectionAlpha } from './gen/grpc/reflection/v1alpha/reflection_pb.ts'
import { mount, type Mounted } from './handler.ts'
import { codeOf } from './status.ts'

/**
 * The services that describe `services` and themselves, in version 1 and under its first name, `v1alpha`.
 * Unknown names are answered on the stream, which stays open, as the protocol says.
 */
export function reflection<Peer>(services: readonly Mounted<Peer>[]): readonly Mounted<Peer>[] {
  const described = [...services.map(({ service }) => service), ServerReflection, ServerReflectionAlpha]
  const catalogue = catalogueOf(described)
  const answers = async function* (requests: AsyncIterable<Asked>): AsyncGenerator<Response, void, void> {
    for await (const { host, messageRequest } of requests) {
      yield { validHost: host, originalRequest: { host, messageRequest }, messageResponse: answer(messageRequest, catalogue) }
    }
  }
  return [
    mount<typeof ServerReflection, Peer>(ServerReflection, { serverReflectionInfo: answers }),
    mount<typeof ServerReflectionAlpha, Peer>(ServerReflectionAlpha, { serverReflectionInfo: answers }),
  ]
}

/** What both versions ask and answer: they differ in the name of their package alone. */
interface Asked {
  readonly host: string
  readonly messageRequest: Question
}

type Question =
  | { readonly case: 'listServices' | 'fileByFilename' | 'fileContainingSymbol' | 'allExtensionNumbersOfType'; readonly value: string }
  | { readonly case: 'fileContainingExtension'; readonly value: { readonly containingType: string; readonly extensionNumber: number } }
  | { readonly case: undefined; readonly value?: undefined }

interface Response {
  validHost: string
  originalRequest: Asked
  messageResponse: Answer
}

type Answer =
  | { case: 'fileDescriptorResponse'; value: { fileDescriptorProto: Uint8Array[] } }
  | { case: 'allExtensionNumbersResponse'; value: { baseTypeName: string } }
  | { case: 'listServicesResponse'; value: { service: { name: string }[] } }
  | { case: 'errorResponse'; value: { errorCode: number; errorMessage: string } }

interface Catalogue {
  readonly services: readonly string[]
  /** Serialised, with everything they import behind them. */
  readonly byFile: ReadonlyMap<string, readonly Uint8Array[]>
  /** Names of files, by the full names of the services, methods and types in them. */
  readonly bySymbol: ReadonlyMap<string, string>
}

function catalogueOf(services: readonly DescService[]): Catalogue {
  const files = new Set(services.flatMap(({ file }) => withImports(file)))
  const bySymbol = new Map<string, string>()
  for (const file of files) {
    for (const type of [...nestedTypes(file), ...file.services]) bySymbol.set(type.typeName, file.proto.name)
    for (const service of file.services)
      for (const { name } of service.methods) bySymbol.set(`${service.typeName}.${name}`, file.proto.name)
  }
  return {
    services: services.map(({ typeName }) => typeName),
    byFile: new Map([...files].map((file) => [file.proto.name, withImports(file).map(serialised)])),
    bySymbol,
  }
}

/** The file first, each file once. */
function withImports(file: DescFile): DescFile[] {
  return [...new Set([file, ...file.dependencies.flatMap(withImports)])]
}

const serialised = ({ proto }: DescFile): Uint8Array => toBinary(FileDescriptorProtoSchema, proto)

function answer(asked: Question, catalogue: Catalogue): Answer {
  switch (asked.case) {
    case 'listServices':
      return { case: 'listServicesResponse', value: { service: catalogue.services.map((name) => ({ name })) } }
    case 'fileByFilename':
      return described(catalogue.byFile.get(asked.value), 'file', asked.value)
    case 'fileContainingSymbol':
      return described(catalogue.byFile.get(catalogue.bySymbol.get(asked.value) ?? ''), 'symbol', asked.value)
    case 'allExtensionNumbersOfType':
      // Nothing served here extends anything.
      if (!catalogue.bySymbol.has(asked.value)) return unknown('type', asked.value)
      return { case: 'allExtensionNumbersResponse', value: { baseTypeName: asked.value } }
    case 'fileContainingExtension':
      return unknown('extension of', asked.value.containingType)
    case undefined:
      return { case: 'errorResponse', value: { errorCode: codeOf('invalid_argument'), errorMessage: 'the request asks for nothing' } }
    default:
      return asked satisfies never
  }
}

function described(files: readonly Uint8Array[] | undefined, what: string, name: string): Answer {
  if (!files) return unknown(what, name)
  return { case: 'fileDescriptorResponse', value: { fileDescriptorProto: [...files] } }
}

function unknown(what: string, name: string): Answer {
  return {
    case: 'errorResponse',
    value: { errorCode: codeOf('not_found'), errorMessage: `no ${what} \`${name.slice(0, 128)}\` is known here` },
  }
}
