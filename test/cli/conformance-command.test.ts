import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { methods, status } from '../../src/conformance/workload-api.ts'
import { BrokenWorkloadApi, refused } from '../conformance/broken-workload-api.ts'
import { vidimus } from './rig.ts'

let good: BrokenWorkloadApi
let broken: BrokenWorkloadApi

beforeAll(async () => {
  good = await BrokenWorkloadApi.start()
  broken = await BrokenWorkloadApi.start({ leaf: { ca: {} } })
})

afterAll(async () => {
  await good[Symbol.asyncDispose]()
  await broken[Symbol.asyncDispose]()
})

const conformance = (api: BrokenWorkloadApi, ...args: readonly string[]) =>
  vidimus(['conformance', '--socket', `unix://${api.socket}`, '--quiet', ...args])

describe('conformance', () => {
  test.each([
    ['an unknown section', ['--selection', 'X,Q'], 'usage.selection'],
    ['an unknown rule', ['--selection', 'J-99'], 'usage.selection'],
    ['a timeout without a unit', ['--timeout', '10'], 'usage.wrong'],
    ['a form of output that there is not', ['--output', 'xml'], 'usage.wrong'],
    ['no audience', ['--audience', ''], 'usage.wrong'],
  ])('refuses %s with exit code 2', async (_what, args, reason) => {
    expect(await conformance(good, ...args)).toMatchObject({ code: 2, out: '', thrown: { reason } })
  })

  test('refuses an address that is none, and one that nobody listens on', async () => {
    expect(await vidimus(['conformance', '--socket', '/run/a.sock'])).toMatchObject({ code: 2, thrown: { reason: 'endpoint.malformed' } })
    const outcome = await vidimus(['conformance', '--socket', 'unix:///nowhere/api.sock'])
    expect(outcome).toMatchObject({ code: 1, thrown: { reason: 'socket.unanswered' } })
    expect(outcome.thrown).toMatchObject({ message: expect.stringContaining('`/nowhere/api.sock`') as string })
  })

  test('exits with 1 and names the rule that is broken, with what was expected and found', async () => {
    const { code, out } = await conformance(broken, '--selection', 'X')
    expect(code).toBe(1)
    expect(out).toContain('X-12  broken: expected cA false, found cA true\n')
    expect(out).toMatch(/, 1 broken, /)
  })

  test('exits with 0 where every rule that shows is kept, and says of the others why they do not show', async () => {
    const { code, out } = await conformance(good)
    expect(code).toBe(0)
    expect(out).toContain('J-11    kept\n')
    expect(out).toContain('X-2     not testable: a rule for validators')
    expect(out).toContain('F-3     not built: federation is not built\n')
    expect(out.trimEnd().split('\n').at(-1)).toMatch(/^\d+ kept, 0 broken, \d+ not testable from outside, 46 not built$/)
  })

  test('says of a process without identity that most rules do not show, and claims none of them', async () => {
    const denied = Object.fromEntries(Object.values(methods).map((method) => [method, refused(status.permissionDenied)]))
    await using api = await BrokenWorkloadApi.start({ methods: denied })
    const { code, out } = await conformance(api)
    expect(code).toBe(0)
    expect(out).toContain('\nthis process has no identity: with one, more rules show\n')
    const kept = [...out.matchAll(/^(\S+) +kept$/gm)].map(([, id]) => id)
    expect(kept).toEqual(['EP-2', 'EP-5', 'EP-14', 'EP-15', 'EP-16', 'EP-18', 'API-1', 'API-23'])
  })

  test('prints the selected rules as JSON and as JUnit', async () => {
    const { out } = await conformance(broken, '--selection', 'X-11,X-12', '--output', 'json')
    expect(JSON.parse(out)).toMatchObject({
      kept: 1,
      broken: 1,
      rules: [
        { rule: 'X-11', verdict: 'kept' },
        { rule: 'X-12', found: 'cA true' },
      ],
    })
    const junit = await conformance(broken, '--selection', 'X-12', '--output', 'junit')
    expect(junit).toMatchObject({ code: 1, out: expect.stringMatching(/^<\?xml .*<failure message="broken: expected cA false/s) as string })
  })

  test('tells its progress on standard error', async () => {
    const { out } = await vidimus(['conformance', '--socket', `unix://${good.socket}`, '--selection', 'EP-15'])
    expect(out).toMatch(/^1\/1 EP-15 a method that there is not is unimplemented\nEP-15 {2}kept\n/)
  })
})
