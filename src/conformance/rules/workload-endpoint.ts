/** Workload Endpoint: spiffe:standards/SPIFFE_Workload_Endpoint.md. */
import type { OutgoingHttpHeaders } from 'node:http2'
import { unseen } from '../reasons.ts'
import { finding, type Rule, section, Unseen } from '../rule.ts'
import { field, isMessage, joined } from '../wire.ts'
import { methods, NoAnswer, status, tellStatus } from '../workload-api.ts'
import { describedMethods, reflectedServices } from '../reflection.ts'

/** What is not the one header with its one value. */
const wrongHeaders: Readonly<Record<string, OutgoingHttpHeaders>> = {
  'without the header': {},
  'with `True`': { 'workload.spiffe.io': 'True' },
  'with `TRUE`': { 'workload.spiffe.io': 'TRUE' },
  'with `1`': { 'workload.spiffe.io': '1' },
  'with nothing in it': { 'workload.spiffe.io': '' },
  'with `false`': { 'workload.spiffe.io': 'false' },
  'with the value twice': { 'workload.spiffe.io': ['true', 'true'] },
  'with the value twice in one': { 'workload.spiffe.io': 'true, true' },
  'with the header of the broker': { 'broker.spiffe.io': 'true' },
}

/** Every method of the two stable profiles, with a request that has what it must have. */
const requests: readonly (readonly [method: string, request: Uint8Array])[] = [
  [methods.x509, joined()],
  [methods.x509Bundles, joined()],
  [methods.jwt, field(1, 'conformance')],
  [methods.jwtBundles, joined()],
  [methods.validate, joined(field(1, 'conformance'), field(2, 'x.y.z'))],
]

const standardMethods = new Set(Object.values(methods).map((path) => path.slice(path.lastIndexOf('/') + 1)))

export const workloadEndpointRules: readonly Rule[] = section({
  'EP-1': {
    level: 'should',
    says: 'the endpoint is on the machine of its workload',
    unseen: 'an address does not tell who else can reach it',
  },
  'EP-2': {
    level: 'must',
    says: 'the endpoint speaks gRPC',
    asks: async (api) => {
      const type = await api.contentType()
      return type === undefined || /^application\/grpc(?:\+proto)?$/.test(type) ? undefined : finding('`application/grpc`', type)
    },
  },
  'EP-3': {
    level: 'should',
    says: 'the endpoint is a Unix socket, and TCP only where the caller can be identified',
    unseen: 'an address does not tell whether the network identifies the caller',
  },
  'EP-4': { level: 'must', says: 'a client sends `workload.spiffe.io: true` with every request', unseen: unseen.clients },
  'EP-5': {
    level: 'must',
    says: 'a request without exactly one `workload.spiffe.io: true` is an invalid argument',
    asks: async (api) => {
      for (const [method, request] of requests) {
        for (const [what, headers] of Object.entries(wrongHeaders)) {
          const answer = await api.outcome(method, request, headers)
          if (!isMessage(answer) && [status.invalidArgument, status.unimplemented].includes(answer.status as 3 | 12)) continue
          return finding('InvalidArgument', `${isMessage(answer) ? 'an answer' : tellStatus(answer)} to ${method} ${what}`)
        }
      }
      return undefined
    },
  },
  'EP-6': {
    level: 'must',
    says: 'TLS is not required',
    unseen: 'this suite speaks without TLS: an endpoint that requires it is not reached at all',
  },
  'EP-7': { level: 'must', says: 'a client without an address takes that of `SPIFFE_ENDPOINT_SOCKET`', unseen: unseen.clients },
  'EP-8': { level: 'must', says: 'the address has the scheme `unix` or `tcp`', unseen: unseen.clients },
  'EP-9': { level: 'must', says: 'a `unix` address is an absolute path and nothing else', unseen: unseen.clients },
  'EP-10': { level: 'must', says: 'a `tcp` address is an IP address and a port, and nothing else', unseen: unseen.clients },
  'EP-11': {
    level: 'must',
    says: 'a workload needs nothing to be identified',
    unseen: 'this suite shows nothing of itself: an endpoint that asks for more answers no check at all',
  },
  'EP-12': { level: 'should', says: 'a client does not repeat what was an invalid argument', unseen: unseen.clients },
  'EP-13': { level: 'may', says: 'a client tries again where the endpoint was unavailable', unseen: unseen.clients },
  'EP-14': {
    level: 'should',
    says: 'a workload without identity is denied',
    asks: async (api) => {
      const answer = await api.outcome(methods.x509)
      if (isMessage(answer)) return new Unseen('this process has an identity: run the suite from one that has none to see this rule')
      const notOurs: readonly number[] = [status.permissionDenied, status.unimplemented, status.unavailable, status.deadlineExceeded]
      return notOurs.includes(answer.status) ? undefined : finding('PermissionDenied', tellStatus(answer))
    },
  },
  'EP-15': {
    level: 'must',
    says: 'a method that there is not is unimplemented',
    asks: async (api) => {
      const answer = await api.outcome('/SpiffeWorkloadAPI/NoSuchMethod')
      return !isMessage(answer) && answer.status === status.unimplemented
        ? undefined
        : finding('Unimplemented', isMessage(answer) ? 'an answer' : tellStatus(answer))
    },
  },
  'EP-16': {
    level: 'must',
    says: 'the service is not extended: what is new is a service of its own',
    asks: async (api) => {
      const found = await ifReflected(() => describedMethods(api, 'SpiffeWorkloadAPI'))
      if (found instanceof Unseen) return found
      const strange = found.filter((name) => !standardMethods.has(name))
      return strange.length === 0 ? undefined : finding('the seven methods of the standard', strange.join(', '))
    },
  },
  'EP-17': { level: 'must', says: 'the Workload API is exposed', unseen: 'API-1 asks for each of its methods' },
  'EP-18': {
    level: 'should',
    says: 'the endpoint tells its services by reflection',
    asks: async (api) => {
      try {
        const services = await reflectedServices(api)
        return services.includes('SpiffeWorkloadAPI') ? undefined : finding('`SpiffeWorkloadAPI` among the services', services.join(', '))
      } catch (error) {
        if (error instanceof NoAnswer) return finding('an answer of gRPC server reflection', tellStatus(error.ended))
        throw error
      }
    },
  },
})

async function ifReflected<T>(ask: () => Promise<T>): Promise<T | Unseen> {
  try {
    return await ask()
  } catch (error) {
    if (error instanceof NoAnswer) return new Unseen('there is no reflection to ask')
    throw error
  }
}
