import { create, fromBinary, type MessageInitShape } from '@bufbuild/protobuf'
import { anyUnpack } from '@bufbuild/protobuf/wkt'
import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { silentLog } from '../../src/kernel/log.ts'
import { clientOf } from '../../src/rpc/client.ts'
import {
  type Secret,
  SecretSchema,
  SPIFFECertValidatorConfigSchema,
} from '../../src/rpc/gen/envoy/extensions/transport_sockets/tls/v3/tls_pb.ts'
import {
  type DiscoveryRequestSchema,
  type DiscoveryResponse,
  DiscoveryResponseSchema,
} from '../../src/rpc/gen/envoy/service/discovery/v3/discovery_pb.ts'
import { SecretDiscoveryService } from '../../src/rpc/gen/envoy/service/secret/v3/sds_pb.ts'
import { mount } from '../../src/rpc/handler.ts'
import { connectInMemory } from '../../src/rpc/in-memory.ts'
import { secretTypeUrl } from '../../src/sds/secrets.ts'
import { secretDiscovery } from '../../src/sds/service.ts'
import { seededRandom } from '../fakes/random.ts'
import { localAgent } from './local-agent.ts'

describe('refuses', () => {
  test('a caller without an identity, and does not tell it why', async () => {
    await using proxy = await connect({ ids: [] })
    await expect(proxy.fetch(['default'])).rejects.toSatisfy((error) => (error as Error).message === 'no identity issued')
    await expect(proxy.open(['default']).next()).rejects.toMatchObject({ category: 'permission_denied', message: 'no identity issued' })
  })

  test('to go on with a stream whose caller lost its last identity', async () => {
    await using proxy = await connect({})
    const stream = proxy.open(['default'])
    await stream.next()
    await proxy.workload.hold()
    await expect(stream.next()).rejects.toMatchObject({ category: 'permission_denied', message: 'no identity issued' })
  })

  test('other types of resources', async () => {
    await using proxy = await connect({})
    const request = { resourceNames: ['default'], typeUrl: 'type.googleapis.com/envoy.config.cluster.v3.Cluster' }
    await expect(proxy.client.fetchSecrets(request)).rejects.toMatchObject({ category: 'invalid_argument' })
  })

  test('silently, the identities of others, a trust domain that it is not federated with, and nonsense; what it may have is served', async () => {
    await using proxy = await connect({})
    const wrong = ['spiffe://example.org/payments', 'spiffe://elsewhere.test', 'rootca', '', '../default']
    expect((await proxy.fetch([...wrong, 'default'])).map(({ name }) => name)).toEqual(['default'])
    expect(proxy.warnings).toContainEqual(expect.objectContaining({ reason: 'xds.no-such-resource', names: wrong, pid: 7 }))
  })

  test('to merge the roots of several trust domains for a proxy that cannot keep them apart', async () => {
    await using proxy = await connect({})
    const names = (await proxy.fetch(['ALL', 'ROOTCA', 'spiffe://other.test'], { disable_spiffe_cert_validation: true })).map(
      ({ name }) => name,
    )
    expect(names.toSorted()).toEqual(['ROOTCA', 'spiffe://other.test'])
  })
})

describe('serves', () => {
  test('a certificate and its own key, by SPIFFE ID and as `default`', async () => {
    await using proxy = await connect({ ids: ['spiffe://example.org/web', 'spiffe://example.org/second'] })
    const secrets = await proxy.fetch(['default', 'spiffe://example.org/web', 'spiffe://example.org/second'])
    const ids = Object.fromEntries(secrets.map((secret) => [secret.name, certificate(secret).subjectAltName]))
    expect(ids).toEqual({
      default: 'URI:spiffe://example.org/web',
      'spiffe://example.org/web': 'URI:spiffe://example.org/web',
      'spiffe://example.org/second': 'URI:spiffe://example.org/second',
    })
    for (const secret of secrets) expect(createPublicKey(createPrivateKey(keyOf(secret))).equals(certificate(secret).publicKey)).toBe(true)
  })

  test('every alias of one bundle in a single request', async () => {
    await using proxy = await connect({})
    const secrets = await proxy.fetch(['ROOTCA', 'spiffe://example.org', 'ALL', 'spiffe://other.test'])
    expect(Object.fromEntries(secrets.map((secret) => [secret.name, trustDomains(secret)]))).toEqual({
      ALL: ['example.org', 'other.test'],
      ROOTCA: ['example.org'],
      'spiffe://example.org': ['example.org'],
      'spiffe://other.test': ['other.test'],
    })
  })

  test('plain roots to a proxy whose metadata asks for them, as text or as a boolean', async () => {
    await using proxy = await connect({})
    for (const asked of [true, 'true']) {
      const [secret] = await proxy.fetch(['ROOTCA'], { disable_spiffe_cert_validation: asked })
      expect(secret?.type).toMatchObject({ case: 'validationContext', value: { trustedCa: { specifier: { case: 'inlineBytes' } } } })
    }
    expect(trustDomains((await proxy.fetch(['ROOTCA'], { disable_spiffe_cert_validation: 'false' }))[0]!)).toEqual(['example.org'])
  })

  test('a new certificate when it rotates, to those who subscribed to it', async () => {
    await using proxy = await connect({})
    const stream = proxy.open(['default'])
    const first = (await stream.next()).value!
    await proxy.workload.hold('spiffe://example.org/web')
    const second = (await stream.next()).value!
    expect(certificate(secretsIn(second)[0]!).serialNumber).not.toBe(certificate(secretsIn(first)[0]!).serialNumber)
    expect(second.versionInfo).not.toBe(first.versionInfo)
  })

  test('the same version for the same content on every stream, and says nothing about the key in it', async () => {
    await using proxy = await connect({})
    const [one, other] = [await proxy.open(['default']).next(), await proxy.open(['default']).next()]
    expect(one.value!.versionInfo).toBe(other.value!.versionInfo)
    expect(one.value!.nonce).not.toBe(other.value!.nonce)
  })
})

async function connect({ ids = ['spiffe://example.org/web'] }: { ids?: readonly string[] }) {
  const local = await localAgent()
  const workload = await local.workload(7, ids)
  const handlers = secretDiscovery({ agent: local.agent, random: seededRandom(1) })
  const channel = connectInMemory({ services: [mount(SecretDiscoveryService, handlers)], peer: workload.peer, log: silentLog })
  const client = clientOf(SecretDiscoveryService, channel)
  const request = (names: readonly string[], metadata = {}): MessageInitShape<typeof DiscoveryRequestSchema> => ({
    resourceNames: [...names],
    typeUrl: secretTypeUrl,
    node: { id: 'envoy', metadata },
  })
  return {
    client,
    workload,
    warnings: local.warnings,
    fetch: async (names: readonly string[], metadata = {}) => secretsIn(await client.fetchSecrets(request(names, metadata))),
    open(names: readonly string[]): AsyncGenerator<DiscoveryResponse, void, void> {
      const stream = client.streamSecrets()
      void stream.send(request(names))
      return stream.responses
    },
    [Symbol.asyncDispose]: () => channel[Symbol.asyncDispose](),
  }
}

const secretsIn = (response: DiscoveryResponse): Secret[] =>
  create(DiscoveryResponseSchema, response).resources.map(({ value }) => fromBinary(SecretSchema, value))

function certificate(secret: Secret): X509Certificate {
  return new X509Certificate(tls(secret).certificateChain!.specifier.value as Uint8Array)
}

function keyOf(secret: Secret): Buffer {
  return Buffer.from(tls(secret).privateKey!.specifier.value as Uint8Array)
}

function tls(secret: Secret) {
  if (secret.type.case !== 'tlsCertificate') throw new Error(`${secret.name} is no certificate`)
  return secret.type.value
}

function trustDomains(secret: Secret): string[] {
  if (secret.type.case !== 'validationContext') throw new Error(`${secret.name} is no bundle`)
  const config = secret.type.value.customValidatorConfig!
  expect(config.name).toBe('envoy.tls.cert_validator.spiffe')
  return anyUnpack(config.typedConfig!, SPIFFECertValidatorConfigSchema)!.trustDomains.map(({ name }) => name)
}
