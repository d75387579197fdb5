import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/kernel/failure.ts'
import { exitCodeFor } from '../../src/main/process.ts'

const cli = fileURLToPath(new URL('../../src/main/cli.ts', import.meta.url))
const module = (path: string) => JSON.stringify(fileURLToPath(new URL(`../../src/${path}`, import.meta.url)))
const vidimus = (...args: string[]) => spawnSync(process.execPath, [cli, ...args], { encoding: 'utf8' })
const program = (work: string) => [
  '--input-type=module-typescript',
  '-e',
  `import { runProcess, terminal } from ${module('main/process.ts')}; import { Failure } from ${module('kernel/failure.ts')}; await runProcess(async (stop) => { ${work} })`,
]

/** Processes take their time on a busy machine. */
const patience = { timeout: 60_000 }

describe('exit codes', patience, () => {
  test.each([
    ['usage.wrong', 2],
    ['config.invalid', 2],
    ['config.override', 2],
    ['duration.malformed', 2],
    ['endpoint.malformed', 2],
    ['endpoint.missing', 2],
    ['entry.not-found', 1],
    ['policy.invalid', 1],
    ['listen.address-in-use', 1],
    ['secret.loose-permissions', 1],
    ['rpc.unavailable', 1],
  ])('%s is %i', (reason, code) => {
    expect(exitCodeFor(new Failure('internal', reason, { public: '' }))).toBe(code)
  })

  test('anything else that is thrown is 1', () => {
    expect(exitCodeFor(new Error('x'))).toBe(1)
    expect(exitCodeFor(undefined)).toBe(1)
  })

  test('reach the shell; results go to standard output and errors to standard error', () => {
    const wrong = vidimus('entyr')
    expect([wrong.status, wrong.stdout, wrong.stderr]).toEqual([
      2,
      '',
      'vidimus: unknown command `entyr`: did you mean `entry`?\nrun `vidimus --help` for what there is\n',
    ])
    const refused = vidimus('health', '--server-socket', '/nonexistent.sock')
    expect([refused.status, refused.stdout]).toEqual([1, ''])
    expect(refused.stderr).toMatch(/^vidimus: nobody answers on `\/nonexistent\.sock`/)
    const good = vidimus('config', 'validate', 'server', '--set', 'trustDomain=example.org')
    expect([good.status, good.stdout, good.stderr]).toEqual([0, 'the server configuration is valid\n', ''])
    const version = vidimus('--version')
    expect([version.status, version.stdout]).toEqual([0, expect.stringMatching(/^\d+\.\d+\.\d+\n$/)])
  })
})

describe('the process', patience, () => {
  test('is not upset by a reader that has seen enough', () => {
    const { status, stderr } = spawnSync(
      'bash',
      [
        '-c',
        `set -o pipefail; "$0" "$@" | head -c 10 > /dev/null`,
        process.execPath,
        ...program(`for (let i = 0; i < 200; i++) { terminal.out('x'.repeat(10_000)); await new Promise((go) => setImmediate(go)) }`),
      ],
      { encoding: 'utf8' },
    )
    expect([status, stderr]).toEqual([0, ''])
  })

  test('tells why, with its causes, and no more than that', () => {
    const { status, stderr } = spawnSync(
      process.execPath,
      program(
        `throw new Failure('internal', 'a.b', { public: 'cannot start', cause: new Error('no disk'), internal: { secret: 'canary' } })`,
      ),
      { encoding: 'utf8' },
    )
    expect([status, stderr]).toEqual([1, 'vidimus: cannot start: no disk\n'])
  })

  test('stops at the first SIGTERM, in its own time', async () => {
    const child = spawn(
      process.execPath,
      program(
        `console.log('up'); const keep = setInterval(() => {}, 1000); await new Promise((done) => stop.addEventListener('abort', done)); clearInterval(keep); console.log('tidied up')`,
      ),
    )
    const closed = once(child, 'close')
    let out = ''
    child.stdout.on('data', (part: Buffer) => {
      out += part.toString()
      if (out === 'up\n') child.kill('SIGTERM')
    })
    expect(await closed).toEqual([0, null])
    expect(out).toBe('up\ntidied up\n')
  })

  test('ends at the second', async () => {
    const child = spawn(
      process.execPath,
      program(
        `console.log('up'); stop.addEventListener('abort', () => console.log('once')); setInterval(() => {}, 1000); await new Promise(() => {})`,
      ),
    )
    const closed = once(child, 'close')
    child.stdout.on('data', () => child.kill('SIGINT'))
    expect(await closed).toEqual([1, null])
  })
})
