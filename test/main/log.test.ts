import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

/** What a program that logs these lines writes to standard error: the real log writes to the real descriptor. */
function logged(format: 'text' | 'json', level: string, statements: string): string[] {
  const at = (path: string) => JSON.stringify(fileURLToPath(new URL(`../../src/${path}`, import.meta.url)))
  const program = `import { openLog } from ${at('main/log.ts')}; import { Secret } from ${at('kernel/log.ts')}; const log = openLog({ level: '${level}', format: '${format}' }); ${statements}`
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module-typescript', '-e', program], { encoding: 'utf8' })
  expect([status, stdout], stderr).toEqual([0, ''])
  return stderr.split('\n').filter((line) => line !== '')
}

describe.each(['text', 'json'] as const)('the log as %s', { timeout: 30_000 }, (format) => {
  test('V-15 never holds a secret, wherever it stands', () => {
    const lines = logged(
      format,
      'debug',
      `const secret = new Secret('canary-91c2'); log.info('x', { secret, list: [secret], deep: { secret } }); log.with({ secret }).error('y'); log.info('z', { token: String(secret) })`,
    )
    expect(lines).toHaveLength(3)
    expect(lines.join()).not.toContain('canary')
    expect(lines.join()).toContain('[secret]')
  })

  test('has one line an event, whatever a field holds', () => {
    const lines = logged(format, 'info', `log.info('joined', { hint: 'a\\n12:00:00 error server gone\\u2028x\\u009b31m', count: 3n })`)
    expect(lines).toHaveLength(1)
    expect(lines[0]).not.toMatch(format === 'text' ? /[\u2028\u009b]/ : /\n/)
  })

  test('leaves out what is below its level', () => {
    expect(logged(format, 'warn', `log.debug('a'); log.info('b'); log.warn('c'); log.error('d')`)).toHaveLength(2)
  })
})

test('text is a time, a level, what happened, and its fields; a value with spaces is quoted', () => {
  const [line] = logged(
    'text',
    'info',
    `log.with({ room: 'ca' }).info('server ready', { address: '127.0.0.1:8081', why: 'no key', odd: 'a=b"', n: 3, none: undefined, list: ['x'] })`,
  )
  expect(line).toMatch(
    /^\d\d:\d\d:\d\d info {2}server ready {2}room=ca address=127\.0\.0\.1:8081 why="no key" odd="a=b\\"" n=3 list=\["x"\]$/,
  )
})

test('JSON has the level as a word and the time as RFC 3339 has it', () => {
  const [line] = logged('json', 'info', `log.info('server ready', { port: 8081, revision: 12n })`)
  expect(JSON.parse(line!)).toEqual({
    level: 'info',
    time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) as string,
    msg: 'server ready',
    port: 8081,
    revision: '12',
  })
})
