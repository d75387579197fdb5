import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { repository } from '../../tools/peers/source.ts'
import { peers } from '../../tools/peers/table.ts'
import { run } from '../../tools/run.ts'

/** A checkout with the tools alone, where no peer was ever provided. */
let checkout: string

beforeAll(async () => {
  checkout = await mkdtemp(join(tmpdir(), 'vd-peers-'))
  for (const part of ['tools', 'test/peers', 'test/support', 'package.json']) {
    await cp(join(repository, part), join(checkout, part), { recursive: true })
  }
  await symlink(join(repository, 'node_modules'), join(checkout, 'node_modules'))
  await writeFile(join(checkout, 'vitest.config.ts'), `export default { test: { reporters: ['./test/support/closing-line-reporter.ts'] } }`)
  await writeFile(
    join(checkout, 'test', 'a.test.ts'),
    `import { test } from 'vitest'
     import { describeWithPeer } from './support/peers.ts'
     describeWithPeer('envoy', 'behind a proxy', (envoy) => { test('calls arrive', () => {}); test('calls are refused', () => {}) })`,
  )
})
afterAll(() => rm(checkout, { recursive: true, force: true }))

describe('tests whose peer is missing', { timeout: 30_000 }, () => {
  test('are skipped by name, with the reason and the command that provides it', async () => {
    const { code, stdout } = await runTests({ VIDIMUS_REQUIRE_PEERS: '0' })
    const reason = `envoy ${peers.envoy.version} is not in \`.peers\`: run \`npm run peers -- envoy\``
    expect(stdout).toContain(`skipped: test/a.test.ts > behind a proxy > calls arrive: ${reason}\n`)
    expect(stdout).toContain(`skipped: test/a.test.ts > behind a proxy > calls are refused: ${reason}\n`)
    expect(stdout).toMatch(/\n0 passed, 0 failed, 2 skipped\n$/)
    expect(code).toBe(0)
  })

  test('fail where peers are required', async () => {
    const { code, stdout } = await runTests({ VIDIMUS_REQUIRE_PEERS: '1' })
    expect(stdout).toMatch(/\n0 passed, 1 failed, 0 skipped\n$/)
    expect(code).toBe(1)
  })

  test('are not run against another version that is still linked', async () => {
    await mkdir(join(checkout, '.peers', 'envoy-1.0.0'), { recursive: true })
    await symlink('envoy-1.0.0', join(checkout, '.peers', 'envoy'))
    const { stdout } = await runTests({ VIDIMUS_REQUIRE_PEERS: '0' })
    expect(stdout).toContain(`\`.peers/envoy\` holds \`envoy-1.0.0\`, expected \`${peers.envoy.folder}\`: run \`npm run peers -- envoy\``)
    expect(stdout).toMatch(/\n0 passed, 0 failed, 2 skipped\n$/)
  })
})

describe('npm run peers', { timeout: 30_000 }, () => {
  test('refuses a name it does not know, with the list of those it does, and exit code 2', async () => {
    const { code, stderr } = await runPeers(['envoi'])
    expect(code).toBe(2)
    expect(stderr).toContain('no peer is called `envoi`')
    for (const name of Object.keys(peers)) expect(stderr).toContain(name)
  })

  test('says what is missing on a machine without package clients, and what would help; --require makes that exit code 1', async () => {
    const bare = { PATH: join(repository, 'node_modules', '.bin'), XDG_CACHE_HOME: join(checkout, 'cache') }
    const lenient = await runPeers(['go-spiffe', 'py-spiffe'], bare)
    expect(lenient.stdout).toMatch(/go-spiffe .* missing: .*`go` is not on PATH\n.*try: install Go/)
    expect(lenient.stdout).toMatch(/py-spiffe .* missing: `python3` is not on PATH\n.*try: install Python/)
    expect(lenient.stdout).toMatch(/\n0 of 2 peers are ready\n$/)
    expect(lenient.code).toBe(0)
    expect((await runPeers(['go-spiffe', '--require'], bare)).code).toBe(1)
  })
})

test('the versions of the table are those that the programs are built with', async () => {
  const read = (path: string) => readFile(join(repository, 'test', 'peers', path), 'utf8')
  expect(await read('go-spiffe/go.mod')).toContain(`github.com/spiffe/go-spiffe/v2 v${peers['go-spiffe'].version}\n`)
  expect(await read('spire-api/go.mod')).toContain(`github.com/spiffe/spire-api-sdk v${peers['spire-api'].version}-`)
  expect(await read('py-spiffe/requirements.txt')).toContain(`spiffe==${peers['py-spiffe'].version}\n`)
})

function runTests(env: Readonly<Record<string, string>>) {
  return run(join(repository, 'node_modules', '.bin', 'vitest'), ['run', '--root', checkout], {
    env: { NO_COLOR: '1', ...env },
    deadlineMs: 25_000,
  })
}

function runPeers(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  return run(process.execPath, [join(checkout, 'tools', 'peers.ts'), ...args], { env, deadlineMs: 25_000 })
}
