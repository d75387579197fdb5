import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { vidimus } from './rig.ts'

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vt-'))
  writeFileSync(join(folder, 'orders.yaml'), policy)
  writeFileSync(join(folder, 'tests.yaml'), tests)
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const policy = `apiVersion: vidimus.dev/v1
kind: AuthorizationPolicy
metadata: { name: orders }
spec:
  identities: [spiffe://example.org/orders]
  rules:
    - from: [{ source: { spiffeIds: [spiffe://example.org/web] } }]
      to: [{ operation: { methods: [GET], paths: [/orders] } }]
`
const tests = `apiVersion: vidimus.dev/v1
kind: PolicyTest
workloads: { orders: { spiffeIds: [spiffe://example.org/orders] } }
cases:
  - { name: web lists, workload: orders, peer: spiffe://example.org/web, method: GET, path: /orders, expect: allowed }
  - { name: "web <deletes> & more", workload: orders, peer: spiffe://example.org/web, method: DELETE, path: /orders, expect: allowed }
`
const run = (...more: string[]) => vidimus(['policy', 'test', folder, ...more])

describe('policy test', () => {
  test.each([['101'], ['-1'], ['x'], ['1.55']])('refuses a coverage that is none: %s', async (percent) => {
    const { code, thrown } = await run(`--min-coverage=${percent}`)
    expect([code, String(thrown)]).toEqual([2, expect.stringContaining('expected a percentage from 0 to 100')])
  })

  test('a filter runs the tests with a text in their name; one that finds none fails', async () => {
    expect(await run('--filter', 'lists')).toMatchObject({ code: 0, out: 'ok      web lists\n1 passed, 0 failed\n' })
    expect(await run('--filter', 'nothing')).toMatchObject({ code: 1, out: 'none of 2 tests has `nothing` in its name\n' })
  })

  test('coverage names what no test asked, with file and line, and does not decide; --min-coverage does', async () => {
    const shown = await run('--filter', 'lists', '--coverage')
    expect(shown.code).toBe(0)
    expect(shown.out).toContain('coverage 57.1 % (4 of 7)\n')
    expect(shown.out).toContain(`${join(folder, 'orders.yaml')}:8: rule 0 of \`orders\`: methods \`GET\` is never false\n`)
    expect(await run('--filter', 'lists', '--min-coverage', '57')).toMatchObject({ code: 0 })
    const below = await run('--filter', 'lists', '--min-coverage', '57.2')
    expect([below.code, below.out]).toEqual([1, expect.stringContaining('coverage 57.1 % is below 57.2 %\n')])
  })

  test('JUnit has a suite a file and a case a test, and says why one failed', async () => {
    const { code, out } = await run('--output', 'junit')
    expect(code).toBe(1)
    expect(out).toContain('tests="2" failures="1"')
    expect(out).toContain('<testcase classname="policy" name="web lists"')
    expect(out).toContain('name="web &#60;deletes&#62; &#38; more"')
    expect(out).toContain('<failure message="expected allowed, found denied">denied: no ALLOW rule matches&#10;nearest is rule 0 of policy')
  })

  test('--junit writes the report to a file, and people read the rest', async () => {
    const report = join(folder, 'report.xml')
    const { code, out } = await run('--junit', report)
    expect([code, out]).toEqual([1, expect.stringContaining('1 passed, 1 failed\n')])
    expect(readFileSync(report, 'utf8')).toBe((await run('--output', 'junit')).out)
    expect((await run('--junit', report, '--filter', 'nothing')).code).toBe(1)
    expect(readFileSync(report, 'utf8')).toContain('<testsuites name="policies">\n</testsuites>')
  })

  test('what it generates is a test file that passes and leaves nothing open', async () => {
    const { out } = await run('--generate')
    writeFileSync(join(folder, 'more.yaml'), out)
    try {
      const { code, out: again } = await run('--coverage', '--filter', '`')
      expect([code, again]).toEqual([0, expect.stringContaining(', 0 failed\n')])
      expect((await run('--coverage')).out).toContain('coverage 100 %')
      expect((await run('--generate')).out).toBe('# every value of every rule is exercised already\n')
    } finally {
      rmSync(join(folder, 'more.yaml'))
    }
  })
})
