import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { istios, ours, web } from '../policy/make.ts'
import { vidimus } from './rig.ts'

const rules = (methods: readonly string[]) => [
  { from: [{ source: { spiffeIds: [web] } }], to: [{ operation: { methods, paths: ['/orders'] } }] },
]
let directory: string
const at = (name: string) => join(directory, name)

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'va-'))
  writeFileSync(at('old.yaml'), ours({ rules: rules(['GET']) }))
  writeFileSync(at('same.yaml'), ours({ rules: [...rules(['GET']), ...rules(['GET'])] }))
  writeFileSync(at('new.yaml'), ours({ rules: rules(['GET', 'PUT']) }))
  writeFileSync(at('istio.yaml'), istios({ rules: [{ to: [{ operation: { hosts: ['a.org'] } }] }] }))
  writeFileSync(at('live.txt'), `# who there is\n${web}\n\nspiffe://example.org/other\n`)
})
afterAll(() => rmSync(directory, { recursive: true }))

describe('policy diff', () => {
  test('ends with 1 where something changed that was not to, and with 0 where nothing did', async () => {
    const codes = async (...more: string[]) => (await vidimus(['policy', 'diff', at('old.yaml'), at('new.yaml'), ...more])).code
    expect(await codes()).toBe(1)
    expect(await codes('--fail-on', 'newly-allowed')).toBe(1)
    expect(await codes('--fail-on', 'newly-denied')).toBe(0)
    expect(await codes('--fail-on', 'nothing')).toBe(0)
    expect((await vidimus(['policy', 'diff', at('old.yaml'), at('same.yaml')])).code).toBe(0)
  })

  test('tells what changed in words, with a request that `policy eval` decides', async () => {
    const { out } = await vidimus(['policy', 'diff', at('old.yaml'), at('new.yaml')])
    expect(out).toContain(`  newly allowed: peer \`${web}\`, path \`/orders\`, method \`PUT\`\n    for example PUT /orders at host.example from ${web}\n    was denied (no-rule-matched), is allowed (rule 0 of \`p\`) at ${at('new.yaml')}:1:`)
    const json = (await vidimus(['policy', 'diff', at('old.yaml'), at('new.yaml'), '--output', 'json'])).json() as { destinations: { newlyAllowed: { witness: { request: object } }[] }[] }
    writeFileSync(at('request.jsonl'), JSON.stringify(json.destinations[0]!.newlyAllowed[0]!.witness.request))
    const decided = async (policies: string) => (await vidimus(['policy', 'eval', '--policies', policies, '--requests', at('request.jsonl')])).json()
    expect(await decided(at('old.yaml'))).toMatchObject({ decision: 'deny' })
    expect(await decided(at('new.yaml'))).toMatchObject({ decision: 'allow' })
  }) // prettier-ignore

  test('prints Markdown and SARIF', async () => {
    const markdown = (await vidimus(['policy', 'diff', at('old.yaml'), at('new.yaml'), '--output', 'markdown'])).out
    expect(markdown).toContain('| **newly allowed** | workloads with identity `spiffe://example.org/{**}` |')
    const sarif = (await vidimus(['policy', 'diff', at('old.yaml'), at('new.yaml'), '--output', 'sarif'])).json() as { version: string; runs: { results: { ruleId: string; locations: { physicalLocation: { artifactLocation: { uri: string }; region: { startLine: number } } }[] }[] }[] }
    expect(sarif.version).toBe('2.1.0')
    expect(sarif.runs[0]!.results[0]).toMatchObject({ ruleId: 'newly-allowed', locations: [{ physicalLocation: { artifactLocation: { uri: at('new.yaml') }, region: { startLine: 1 } } }] })
  }) // prettier-ignore
})

test('policy equivalent is proved, or shows a request', async () => {
  const proved = await vidimus(['policy', 'equivalent', at('old.yaml'), at('same.yaml')])
  expect(proved).toMatchObject({ code: 0, out: 'equivalent: no request is decided differently: proved for 2 kinds of workloads\n' })
  const refuted = await vidimus(['policy', 'equivalent', at('old.yaml'), at('new.yaml'), '--output', 'json'])
  expect({ code: refuted.code, answer: (refuted.json() as { answer: string }).answer }).toEqual({ code: 1, answer: 'witness' })
})

test('policy who-can sorts peers and known identities', async () => {
  const orders = 'spiffe://example.org/ns/shop/sa/orders'
  const { code, out } = await vidimus(['policy', 'who-can', 'GET', orders, '/orders', '--policies', at('old.yaml'), '--identities', at('live.txt')])
  expect(code).toBe(0)
  expect(out).toContain(`always  \`${web}\`\n        known: ${web}\n        for example GET /orders at host.example from ${web}\nnever   known: spiffe://example.org/other\n`)
  expect((await vidimus(['policy', 'who-can', 'PUT', orders, '/orders', '--policies', at('old.yaml')])).out).toContain('nobody can\n')
}) // prettier-ignore

test('policy reach prints a matrix, also as comma-separated values', async () => {
  const { out } = await vidimus(['policy', 'reach', at('old.yaml'), '--identities', at('live.txt'), '--output', 'csv'])
  expect(out.split('\r\n').slice(0, 2)).toEqual([
    '"source","destination","reach","what"',
    `"${web}","workloads with identity \`spiffe://example.org/{**}\`","some","path \`/orders\`, method \`GET\`"`,
  ])
})

test('policy reach --diff prints what each source gained and lost, and nothing where nothing changed', async () => {
  const { code, out } = await vidimus(['policy', 'reach', '--diff', at('old.yaml'), at('new.yaml'), '--output', 'csv'])
  expect([code, out]).toEqual([
    0,
    `"source","destination","before","after","gained","lost"\r\n"\`${web}\`","workloads with identity \`spiffe://example.org/{**}\`","some","some","path \`/orders\`, method \`PUT\`",""\r\n`,
  ])
  const back = await vidimus(['policy', 'reach', '--diff', at('new.yaml'), at('old.yaml'), '--identities', at('live.txt'), '--output', 'json']) // prettier-ignore
  expect(back.json()).toMatchObject({ changes: [{ source: web, gained: '', lost: 'path `/orders`, method `PUT`', witness: { http: { method: 'PUT' } } }] }) // prettier-ignore
  const same = await vidimus(['policy', 'reach', '--diff', at('old.yaml'), at('same.yaml')])
  expect(same).toMatchObject({ code: 0, out: 'every source reaches what it reached before, and nothing else\n' })
})

test('policy explain says which rule, as a sentence, and the nearest change', async () => {
  const ask = (method: string) => JSON.stringify({ workload: { identities: ['spiffe://example.org/ns/shop/sa/orders'] }, peer: { principal: web }, method, host: 'a', path: '/orders' }) // prettier-ignore
  const denied = await vidimus(['policy', 'explain', ask('PUT'), '--policies', at('old.yaml')])
  expect(denied.code).toBe(1)
  expect(denied.out).toContain(`it would be allowed with method \`GET\`\nfor example GET /orders at a from ${web}, which was replayed\n`)
  const allowed = await vidimus(['policy', 'explain', ask('GET'), '--policies', at('old.yaml')])
  expect(allowed.code).toBe(0)
  expect(allowed.out).toContain(`rule 0 of \`p\` allows requests with methods \`GET\` and paths \`/orders\` from spiffeIds \`${web}\``)
})

test('policy lint ends with 1 for what is at least a warning, and names the holes of istio mode', async () => {
  expect((await vidimus(['policy', 'lint', at('old.yaml')])).out).toBe('nothing is suspicious\n')
  const note = await vidimus(['policy', 'lint', at('same.yaml')])
  expect(note).toMatchObject({ code: 0 })
  expect(note.out).toContain('note redundant-rule (p rule 1)\n')
  expect((await vidimus(['policy', 'lint', at('same.yaml'), '--fail-on', 'note'])).code).toBe(1)
  writeFileSync(at('workloads.jsonl'), '{"identities":["spiffe://other.org/a"],"port":80}\n\n')
  expect((await vidimus(['policy', 'lint', at('old.yaml'), '--workloads', at('workloads.jsonl')])).out).toContain('warning selects-nothing (p)\n  none of the known workloads') // prettier-ignore
  writeFileSync(at('wrong.jsonl'), '{"identities":[]}\n{"ports":80}\n')
  const wrong = await vidimus(['policy', 'lint', at('old.yaml'), '--workloads', at('wrong.jsonl')])
  expect([wrong.code, String(wrong.thrown)]).toEqual([2, expect.stringMatching(/wrong.jsonl:2: .*`ports`/)])
  const istio = await vidimus(['policy', 'lint', at('istio.yaml'), '--compat', 'istio', '--output', 'sarif'])
  expect(istio.code).toBe(1)
  expect(istio.out).toContain('"ruleId": "hole-host-without-port"')
})

test('policy diff tells who may call the server and which nodes are admitted, with an example', async () => {
  const policy = (target: string, spec: object) => JSON.stringify({ apiVersion: 'vidimus.dev/v1', kind: 'AuthorizationPolicy', metadata: { name: target.toLowerCase() }, spec: { target, rules: [spec] } }) // prettier-ignore
  const calls = (callers: readonly string[]) => policy('serverApi', { from: [{ source: { callers } }], to: [{ operation: { paths: ['/a.B/C'] } }] }) // prettier-ignore
  const nodes = policy('onboarding', { when: [{ key: 'attested.x509pop.subject:cn', values: ['rack-1'] }] })
  writeFileSync(at('own.yaml'), calls(['admin']))
  writeFileSync(at('own-next.yaml'), `${calls(['admin', 'agent'])}\n---\n${nodes}`)
  const { code, out } = await vidimus(['policy', 'diff', at('own.yaml'), at('own-next.yaml')])
  expect(code).toBe(1)
  expect(out).toContain(
    "at the server's own API\n  newly allowed: caller `agent`, method `/a.B/C`\n    for example /a.B/C by agent\n    was denied (no-rule-matched), is allowed (rule 0 of `serverapi`)",
  )
  expect(out).toContain('for example a node with evidence of type x509pop that proves `x509pop:subject:cn:rack-1`\n')
  expect(out).toContain("2 newly allowed, 0 newly denied; at the server's own API and the admission of nodes; every example was replayed")
  expect((await vidimus(['policy', 'equivalent', at('own.yaml'), at('own.yaml')])).out).toBe(
    "equivalent: no request is decided differently: proved for 1 kind of workload and the server's own API\n",
  )
})
