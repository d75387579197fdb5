import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { repository } from '../../tools/peers/source.ts'
import { run } from '../../tools/run.ts'

let base: string

beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'vd-runner-'))
  await symlink(join(repository, 'node_modules'), join(base, 'node_modules'))
  await writeFile(join(base, 'package.json'), '{ "type": "module" }')
})
afterAll(() => rm(base, { recursive: true, force: true }))

describe('the closing line', { timeout: 60_000 }, () => {
  test('counts what passed, failed and was skipped, alone on the last line', async () => {
    const { code, lines } = await runTests({
      a: `
      test('good', () => {})
      test('bad', () => { throw new Error('bad') })
      test.skip('off', () => {})
    `,
    })
    expect(lines.at(-1)).toBe('1 passed, 1 failed, 1 skipped')
    expect(code).toBe(1)
  })

  test('counts a file that cannot be loaded as one failed', async () => {
    const { code, lines } = await runTests({ a: `import './nowhere.ts'` })
    expect(lines.at(-1)).toBe('0 passed, 1 failed, 0 skipped')
    expect(code).toBe(1)
  })

  test('counts a hook that throws and a rejection nobody caught', async () => {
    const { lines } = await runTests({
      a: `
      describe('with a broken hook', () => {
        beforeAll(() => { throw new Error('hook') })
        test('never runs', () => {})
      })
      test('lets a promise float', async () => { void Promise.reject(new Error('lost')); await new Promise((r) => setTimeout(r, 20)) })
    `,
    })
    expect(lines.at(-1)).toBe('1 passed, 2 failed, 1 skipped')
    expect(lines).toContainEqual(expect.stringContaining('never runs: a hook before it failed'))
  })

  test('names every skipped test with its reason', async () => {
    const { code, lines } = await runTests({
      a: `
      describe.skip('needs a peer', { meta: { skipReason: 'it is missing: run \`npm run peers\`' } }, () => { test('asks it', () => {}) })
      test('looks first', (context) => context.skip('no such device'))
    `,
    })
    expect(lines).toContainEqual(expect.stringContaining('needs a peer > asks it: it is missing: run `npm run peers`'))
    expect(lines).toContainEqual(expect.stringContaining('looks first: no such device'))
    expect(lines.at(-1)).toBe('0 passed, 0 failed, 2 skipped')
    expect(code).toBe(0)
  })
})

test('a file that leaves something open fails, and says what', { timeout: 60_000 }, async () => {
  const { code, output, lines } = await runTests({
    server: `import { createServer } from 'node:net'
      test('opens', () => new Promise((r) => createServer().listen(0, '127.0.0.1', r)))`,
    socket: `import { createServer } from 'node:net'
      test('opens', () => new Promise((r) => createServer().listen('${join(base, 's')}', r)))`,
    child: `import { spawn } from 'node:child_process'
      test('opens', () => { spawn('sleep', ['5'], { stdio: 'ignore' }) })`,
    timer: `test('opens', () => { setInterval(() => {}, 1000) })`,
    tidy: `import { createServer, connect } from 'node:net'
      test('closes what it opened', async () => {
        const server = createServer((socket) => socket.end())
        await new Promise((r) => server.listen(0, '127.0.0.1', r))
        const client = connect(server.address().port, '127.0.0.1')
        await new Promise((r) => client.resume().once('close', r))
        server.close()
      })`,
  })
  for (const what of ['TCP server', 'Unix socket or pipe', 'child process', 'timer'])
    expect(output).toContain(`left open by this file: 1 × ${what}\n`)
  expect(lines.at(-1)).toBe('5 passed, 4 failed, 0 skipped')
  expect(code).toBe(1)
})

/** Runs test files in a process of their own, with our reporter and our leak check. */
async function runTests(files: Readonly<Record<string, string>>): Promise<{ code: number | undefined; output: string; lines: string[] }> {
  const folder = await mkdtemp(join(base, 'run-'))
  for (const [name, source] of Object.entries(files)) {
    await writeFile(join(folder, `${name}.test.ts`), `import { beforeAll, describe, expect, test } from 'vitest'\n${source}`)
  }
  const support = join(repository, 'test', 'support')
  await writeFile(
    join(folder, 'vitest.config.ts'),
    `export default { test: { pool: 'forks', reporters: ['default', '${join(support, 'closing-line-reporter.ts')}'], setupFiles: ['${join(support, 'leaks.ts')}'] } }`,
  )
  const ended = await run(join(repository, 'node_modules', '.bin', 'vitest'), ['run', '--root', folder], {
    env: { NO_COLOR: '1' },
    deadlineMs: 50_000,
  })
  const output = `${ended.stdout}${ended.stderr}`
  return { code: ended.code, output, lines: ended.stdout.trimEnd().split('\n') }
}
