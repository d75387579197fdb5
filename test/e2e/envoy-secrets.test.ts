import { expect, test } from 'vitest'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { systemRandom } from '../../src/kernel/random.ts'
import { SecretDiscoveryService } from '../../src/rpc/gen/envoy/service/secret/v3/sds_pb.ts'
import { mount } from '../../src/rpc/handler.ts'
import { secretDiscovery } from '../../src/sds/service.ts'
import type { StreamState } from '../../src/xds/stream.ts'
import { sendOverTls, serveAgent, until } from '../sds/envoy-agent.ts'
import { heldIdentity, localAgent, type LocalAgent } from '../sds/local-agent.ts'
import { type EnvoyConfig, startEnvoy } from '../support/envoy.ts'
import { describeWithPeer } from '../support/peers.ts'

describeWithPeer('envoy', 'an Envoy that has its secrets from the agent', ({ path }) => {
  test('gets `default`, `ROOTCA`, `ALL`, an identity by its ID and a bundle by its trust domain, and speaks mutual TLS with each', async () => {
    await using mesh = await start(path, {
      listeners: [
        { name: 'usual', tls: { certificate: 'default', validation: 'ROOTCA' }, httpFilters: [] },
        { name: 'federated', tls: { certificate: 'spiffe://example.org/web', validation: 'ALL' }, httpFilters: [] },
        { name: 'foreigners', tls: { certificate: 'default', validation: 'spiffe://other.test' }, httpFilters: [] },
      ],
    })
    const ours = await heldIdentity(mesh.local.ca, parseSpiffeId('spiffe://example.org/client'))
    const theirs = await heldIdentity(mesh.local.foreign, parseSpiffeId('spiffe://other.test/client'))
    // The foreign CA signs a name of our trust domain: each domain's roots vouch for that domain only.
    const impostor = await heldIdentity(mesh.local.foreign, parseSpiffeId('spiffe://example.org/client'))
    const verdict = async (listener: string, client: typeof ours | undefined) =>
      (await sendOverTls(mesh.local, client, mesh.envoy.port(listener), request).catch(() => ({ status: 0 }))).status === 200

    expect({
      ours: await verdict('usual', ours),
      theirs: await verdict('usual', theirs),
      nobody: await verdict('usual', undefined),
    }).toEqual({ ours: true, theirs: false, nobody: false })
    expect({
      ours: await verdict('federated', ours),
      theirs: await verdict('federated', theirs),
      impostor: await verdict('federated', impostor),
    }).toEqual({ ours: true, theirs: true, impostor: false })
    expect({ ours: await verdict('foreigners', ours), theirs: await verdict('foreigners', theirs) }).toEqual({ ours: false, theirs: true })
    expect(mesh.rejections()).toEqual([])
  })

  test('rotates without a failed request and without a NACK', async () => {
    await using mesh = await start(path, {
      listeners: [{ name: 'in', tls: { certificate: 'default', validation: 'ALL' }, httpFilters: [] }],
    })
    const client = await heldIdentity(mesh.local.ca, parseSpiffeId('spiffe://example.org/client'))
    const serials = new Set<string>()
    let requests = 0
    let failures = 0
    const ask = async () => {
      const answer = await sendOverTls(mesh.local, client, mesh.envoy.port('in'), request).catch(() => ({ status: 0, serial: '' }))
      requests++
      if (answer.status === 200) serials.add(answer.serial)
      else failures++
    }
    await ask()
    for (let rotation = 2; rotation <= 4; rotation++) {
      await mesh.workload.hold('spiffe://example.org/web')
      await until(`certificate ${rotation} is shown`, async () => {
        await ask()
        return serials.size === rotation
      })
    }
    expect({ failures, serials: serials.size, rejections: mesh.rejections() }).toEqual({ failures: 0, serials: 4, rejections: [] })
    expect(requests).toBeGreaterThanOrEqual(4)
  })
})

const request = ['GET / HTTP/1.1', 'Host: web.test']

async function start(binary: string, config: Pick<EnvoyConfig, 'listeners'>) {
  await using owned = new AsyncDisposableStack()
  const local: LocalAgent = await localAgent()
  const workload = await local.workload(7, ['spiffe://example.org/web'])
  const rejections: string[] = []
  const report = ({ rejection }: StreamState) => rejection !== undefined && rejections.push(rejection)
  const socket = owned.use(
    await serveAgent(workload, [mount(SecretDiscoveryService, secretDiscovery({ agent: local.agent, random: systemRandom, report }))]),
  )
  const envoy = owned.use(await startEnvoy(binary, { agentSocket: socket.path, ...config }))
  const open = owned.move()
  return { local, workload, envoy, rejections: () => rejections, [Symbol.asyncDispose]: () => open[Symbol.asyncDispose]() }
}
