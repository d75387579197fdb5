import { once } from 'node:events'
import { connect, type TLSSocket } from 'node:tls'
import { X509Certificate } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { seconds } from '../../src/kernel/duration.ts'
import { exactly, openX509Source, tlsClientOptions, type X509Source } from '../../src/workload-client/vidimus.ts'
import { formatPolicy, pkiRights, sessionRights } from '../../src/ca/vault/rights.ts'
import { type RunningEnvoy, startEnvoy } from '../support/envoy.ts'
import { OpenBao } from '../support/openbao.ts'
import { scrape } from '../support/prometheus.ts'
import { describeWithPeer } from '../support/peers.ts'
import { type AgentProgram, eventually, idOf, Installation, type ServerProgram } from '../support/programs.ts'

describeWithPeer('openbao', 'OpenBao above our CA, and Envoy below it', (openbao) => {
  describeWithPeer('envoy', 'a workload behind Envoy', (envoyPeer) => {
    const bao = new OpenBao(openbao.path)
    let installation: Installation
    let server: ServerProgram
    let agent: AgentProgram
    let envoy: RunningEnvoy
    let source: X509Source
    let secretId: string

    beforeAll(async () => {
      installation = await Installation.open()
      await bao.start(installation.directory)
      await bao.mountRoot('pki')
      const policy = await bao.policy(formatPolicy([...pkiRights({ mount: 'pki', issuer: 'vidimus' }), ...sessionRights]))
      await bao.write('pki/issuer/first', { issuer_name: 'vidimus' })
      await bao.call('sys/auth/approle', { type: 'approle' })
      // A token of six seconds, renewed every four at most.
      await bao.write('auth/approle/role/vid', { token_policies: policy, token_no_default_policy: true, token_period: '6s' })
      const roleId = String((await bao.read('auth/approle/role/vid/role-id'))['role_id'])
      ;({ secret_id: secretId } = (await bao.write('auth/approle/role/vid/secret-id', {})) as { secret_id: string })
      server = await installation.server({
        upstreamAuthority: {
          kind: 'vault',
          address: bao.address,
          issuer: 'vidimus',
          auth: { method: 'approle', roleId, secretId: { file: await installation.write('secret-id', secretId) } },
        },
        ca: { lifetime: '30s' },
        svid: { x509: '8s', agent: '8s' },
        log: { format: 'json', level: 'debug' },
        refreshHint: '1s',
        metrics: { prometheus: { port: 0 } },
      })
      agent = await installation.agent(server, { syncInterval: '300ms' })
      await server.entries(await agent.spiffeId(), { spiffeId: idOf('/web'), selectors: [`unix:uid:${process.getuid!()}`] })
      source = await openX509Source({ address: agent.address, timeout: seconds(30) })
      envoy = await startEnvoy(envoyPeer.path, {
        agentSocket: agent.socket,
        listeners: [{ name: 'in', tls: { certificate: 'default', validation: 'ROOTCA' }, httpFilters: [] }],
      })
    })

    afterAll(async () => {
      await envoy[Symbol.asyncDispose]()
      await source[Symbol.asyncDispose]()
      await installation[Symbol.asyncDispose]()
      await bao.stop()
    })

    test('V-7, V-8 the token is renewed five times and the root is replaced under load, and no handshake fails', async () => {
      const seen = { handshakes: 0, failures: [] as string[], roots: new Set<string>() }
      const stop = new AbortController()
      const load = Promise.all(Array.from({ length: 4 }, () => shakeHands(seen, stop.signal)))
      await eventually('a handshake was made', () => seen.handshakes > 20)

      await bao.addRoot('pki', 'second')
      await bao.write('pki/issuer/vidimus', { issuer_name: 'retired' })
      await bao.write('pki/issuer/second', { issuer_name: 'vidimus' })

      await eventually('Envoy shows certificates under the new root', () => seen.roots.size === 2, 60_000)
      await eventually('the token was renewed five times', () => renewals() >= 5, 60_000)
      stop.abort()
      await load
      expect(seen.failures).toEqual([])
      expect(seen.handshakes).toBeGreaterThan(500)
      expect(server.log.filter((line) => line.includes('"logged in to the vault"'))).toHaveLength(1)
      const metrics = await scrape(server)
      expect(metrics.value('vidimus_vault_renewals_total', { outcome: 'done' })).toBeGreaterThanOrEqual(5)
      expect(metrics.value('vidimus_vault_logins_total', { outcome: 'done' })).toBe(1)
      expect(metrics.value('vidimus_vault_token_expiry_timestamp_seconds', { use: 'pki' })).toBeGreaterThan(Date.now() / 1000)
      expect(metrics.value('vidimus_authority_steps_total', { kind: 'x509', step: 'activated' })).toBeGreaterThan(1)
      // V-15: at the most talkative level too.
      const log = server.log.join('\n')
      expect(log).not.toContain(secretId)
      expect(log).not.toMatch(/"(?:hv)?s\.[A-Za-z0-9]{20,}|BEGIN CERTIFICATE REQUEST/)
    }, 110_000)

    const renewals = (): number => server.log.filter((line) => line.includes('"renewed our token for the vault"')).length

    /** A new connection each time, with the certificate of that moment, verified both ways. */
    async function shakeHands(seen: { handshakes: number; failures: string[]; roots: Set<string> }, stop: AbortSignal): Promise<void> {
      while (!stop.aborted) {
        try {
          const socket = connect({ host: '127.0.0.1', port: envoy.port('in'), ...tlsClientOptions(source, exactly(idOf('/web'))) })
          try {
            await once(socket, 'secureConnect')
            // Envoy refuses a client's certificate after its own handshake: an answer shows that it did not.
            socket.write('GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n')
            const [answer] = (await once(socket, 'data')) as [Buffer]
            if (!answer.toString('latin1').startsWith('HTTP/1.1 200')) throw new Error(`answered ${answer.toString('latin1', 0, 30)}`)
            seen.roots.add(issuerOf(socket))
            seen.handshakes++
          } finally {
            socket.destroy()
          }
        } catch (error) {
          seen.failures.push(String(error))
        }
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    }
  })
})

/** Who signed the CA that signed the certificate that was shown. */
function issuerOf(socket: TLSSocket): string {
  let certificate = socket.getPeerX509Certificate()
  while (certificate?.issuerCertificate && certificate.issuerCertificate !== certificate) certificate = certificate.issuerCertificate
  return certificate instanceof X509Certificate ? certificate.issuer : ''
}
