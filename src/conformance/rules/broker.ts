/** Broker Endpoint and Broker API, incubating: spiffe:standards/SPIFFE_Broker_Endpoint.md, SPIFFE_Broker_API.md. */
import { notBuilt } from '../reasons.ts'
import { type Rule, section } from '../rule.ts'

export const brokerRules: readonly Rule[] = section({
  'BE-1': { level: 'should', says: 'the endpoint is within reach of its clients only', notBuilt: notBuilt.broker },
  'BE-2': { level: 'must', says: 'the endpoint speaks gRPC, over a Unix socket or TCP', notBuilt: notBuilt.broker },
  'BE-3': { level: 'must', says: 'a request without `broker.spiffe.io: true` is an invalid argument', notBuilt: notBuilt.broker },
  'BE-4': { level: 'must', says: "both sides show X509-SVIDs, and check each other's SPIFFE ID", notBuilt: notBuilt.broker },
  'BE-5': { level: 'must', says: 'a client without an address takes that of `SPIFFE_BROKER_SOCKET`', notBuilt: notBuilt.broker },
  'BE-6': { level: 'should', says: 'a client does not try again with the certificate that was refused', notBuilt: notBuilt.broker },
  'BE-7': { level: 'must', says: 'the Broker API is exposed', notBuilt: notBuilt.broker },
  'BR-1': { level: 'must', says: 'the profiles for X509-SVIDs and JWT-SVIDs are there', notBuilt: notBuilt.broker },
  'BR-2': { level: 'must', says: 'the methods are those of the standard, with nothing added', notBuilt: notBuilt.broker },
  'BR-3': { level: 'must', says: 'a reference means one workload, and the server sees that it is there', notBuilt: notBuilt.broker },
  'BR-4': { level: 'must', says: 'a request has exactly one reference, of a type that is known', notBuilt: notBuilt.broker },
  'BR-5': { level: 'must', says: 'local references stay on their node', notBuilt: notBuilt.broker },
  'BR-6': { level: 'must', says: 'a process is named by its own number', notBuilt: notBuilt.broker },
  'BR-7': { level: 'must', says: 'a Kubernetes object is named by type and by key or uid, and both agree', notBuilt: notBuilt.broker },
  'BR-8': { level: 'must', says: 'a reference of an unknown type is an invalid argument', notBuilt: notBuilt.broker },
  'BR-9': { level: 'must', says: 'only listed brokers may call', notBuilt: notBuilt.broker },
  'BR-10': { level: 'must', says: 'what belongs to one workload never reaches another', notBuilt: notBuilt.broker },
  'BR-11': { level: 'must', says: 'a stream begins at once, and every message tells everything', notBuilt: notBuilt.broker },
  'BR-12': { level: 'must', says: 'defaults and federated bundles are those of the Workload API', notBuilt: notBuilt.broker },
  'BR-13': { level: 'must', says: 'each refusal has its status code and reason', notBuilt: notBuilt.broker },
  'BR-14': { level: 'must', says: 'a stream ends with its workload', notBuilt: notBuilt.broker },
  'BR-15': { level: 'must', says: 'answers are as complete as those of the Workload API', notBuilt: notBuilt.broker },
})
