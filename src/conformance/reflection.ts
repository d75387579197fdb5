/** What an endpoint says of itself by gRPC server reflection, in the version it knows. */
import { field, type Message, messagesOf, textOf } from './wire.ts'
import { NoAnswer, status, type WorkloadApi } from './workload-api.ts'

/** The names of the services. @throws NoAnswer where there is no reflection */
export async function reflectedServices(api: WorkloadApi): Promise<readonly string[]> {
  const answer = await ask(api, field(7, '*'))
  return messagesOf(answer, 6).flatMap((list) => messagesOf(list, 1).map((service) => textOf(service, 1)))
}

/** The methods of a service, as its description has them. @throws NoAnswer where there is no reflection */
export async function describedMethods(api: WorkloadApi, service: string): Promise<readonly string[]> {
  const answer = await ask(api, field(4, service))
  return messagesOf(answer, 4)
    .flatMap((files) => messagesOf(files, 1))
    .flatMap((file) => messagesOf(file, 6))
    .filter((one) => textOf(one, 1) === service)
    .flatMap((one) => messagesOf(one, 2).map((method) => textOf(method, 1)))
}

/** The stable version first, then the one that came before it. */
async function ask(api: WorkloadApi, request: Uint8Array): Promise<Message> {
  const path = (version: string) => `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`
  try {
    return await api.ask(path('v1'), request, undefined, true)
  } catch (error) {
    if (!(error instanceof NoAnswer) || error.ended.status !== status.unimplemented) throw error
    return api.ask(path('v1alpha'), request, undefined, true)
  }
}
