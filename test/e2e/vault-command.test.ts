import { afterAll, beforeAll, expect, test } from 'vitest'
import { repository } from '../../tools/peers/source.ts'
import { run } from '../../tools/run.ts'
import { OpenBao } from '../support/openbao.ts'
import { describeWithPeer } from '../support/peers.ts'
import { Installation } from '../support/programs.ts'
import { join } from 'node:path'

describeWithPeer('openbao', 'vidimus vault, with an OpenBao server', (found) => {
  const bao = new OpenBao(found.path)
  let installation: Installation
  beforeAll(async () => {
    installation = await Installation.open()
    await bao.start(installation.directory)
    await bao.mountRoot('pki')
    await bao.mountRoot('pki-short', { max: '1h' })
    await bao.call('sys/mounts/transit', { type: 'transit' })
  })
  afterAll(async () => {
    await bao.stop()
    await installation[Symbol.asyncDispose]()
  })

  const vidimus = (...args: string[]) => run(process.execPath, [join(repository, 'src/main/cli.ts'), ...args], { deadlineMs: 60_000 })

  async function configured(token: string, { mount = 'pki', address = bao.address } = {}): Promise<string> {
    const auth = { method: 'token', token: { file: await installation.write('token', token) } }
    return installation.write(
      'server.yaml',
      JSON.stringify({
        trustDomain: 'example.org',
        upstreamAuthority: { kind: 'vault', address, mount, issuer: 'first', auth },
        keyManager: { kind: 'vault-transit', address, auth },
      }),
    )
  }

  test('V-2 a token that lacks everything is told each path with the policy to add, and exit code 1', async () => {
    const config = await configured(await bao.tokenFor('path "sys/capabilities-self" { capabilities = ["update"] }'))
    const { code, stdout } = await vidimus('vault', 'check', '--config', config)
    expect(code).toBe(1)
    for (const line of [
      'add: path "pki/issuer/first/sign-intermediate" { capabilities = ["update"] }',
      'add: path "auth/token/renew-self" { capabilities = ["update"] }',
      'add: path "transit/keys/vidimus-*" { capabilities = ["create", "read", "update", "delete"] }',
    ]) {
      expect(stdout).toContain(line)
    }
  })

  test('V-21 with the printed policy nothing is missing', async () => {
    const config = await configured('not yet')
    const policy = await vidimus('vault', 'policy', '--config', config)
    expect(policy.code).toBe(0)
    const { code, stdout } = await vidimus(
      'vault',
      'check',
      '--output',
      'json',
      '--config',
      await configured(await bao.tokenFor(policy.stdout)),
    )
    const { ok, vaults } = JSON.parse(stdout) as {
      ok: boolean
      vaults: { role: string; findings: { what: string; ok: boolean; text: string }[] }[]
    }
    expect(vaults.flatMap(({ findings }) => findings.filter((finding) => !finding.ok))).toEqual([])
    expect({ ok, code, roles: vaults.map(({ role }) => role) }).toEqual({ ok: true, code: 0, roles: ['upstream authority', 'key manager'] })
    expect(vaults[0]!.findings.map(({ what }) => what)).toEqual([
      'health',
      'login',
      'right',
      'right',
      'right',
      'right',
      'right',
      'right',
      'issuer',
      'lifetime',
    ])
    expect(vaults[0]!.findings.at(-2)?.text).toMatch(/^`CN=root of pki` signs for us, until 20/)
  })

  test('V-21 the policy needs no configuration', async () => {
    const { stdout } = await vidimus(
      'vault',
      'policy',
      '--mount',
      'teams/pki',
      '--issuer',
      'root-2026',
      '--transit',
      'transit',
      '--key-prefix',
      'ca',
    )
    expect(stdout.split('\n').filter((line) => line.startsWith('path'))).toEqual([
      'path "teams/pki/issuer/root-2026/sign-intermediate" { capabilities = ["update"] }',
      'path "teams/pki/issuer/root-2026/json" { capabilities = ["read"] }',
      'path "transit/keys/ca-*" { capabilities = ["create", "read", "update", "delete"] }',
      'path "transit/sign/ca-*" { capabilities = ["update"] }',
      'path "auth/token/renew-self" { capabilities = ["update"] }',
      'path "auth/token/lookup-self" { capabilities = ["read"] }',
      'path "auth/token/revoke-self" { capabilities = ["update"] }',
      'path "sys/capabilities-self" { capabilities = ["update"] }',
    ])
    const { code, stderr } = await vidimus('vault', 'policy', '--mount', 'pki/../sys')
    expect({ code, stderr }).toMatchObject({ code: 2, stderr: expect.stringContaining('is not a path of a vault') as string })
  })

  test('V-4 a mount that signs for less than `ca.lifetime` is told before the first rotation', async () => {
    const config = await configured(bao.token, { mount: 'pki-short' })
    const { code, stdout } = await vidimus('vault', 'check', '--config', config)
    expect(code).toBe(1)
    expect(stdout).toContain('the mount `pki-short` signs for 1h at most: less than the 1d of `ca.lifetime`')
    expect(stdout).toContain('add: vault secrets tune -max-lease-ttl=86400s pki-short')
  })

  test('a configuration without a vault is a mistake of whoever asks', async () => {
    const config = await installation.write('plain.yaml', JSON.stringify({ trustDomain: 'example.org' }))
    expect(await vidimus('vault', 'check', '--config', config)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('the configuration names no vault') as string,
    })
  })

  test('V-10 a vault that is sealed, and one that is not there, are told as what they are', async () => {
    await bao.seal()
    expect((await vidimus('vault', 'check', '--config', await configured('any'))).stdout).toMatch(
      /missing {2}health +the vault at `.*` is sealed/,
    )
    const gone = await vidimus('vault', 'check', '--config', await configured('any', { address: 'http://127.0.0.1:1' }))
    expect(gone.stdout).toContain('cannot be reached (ECONNREFUSED)')
  })
})
