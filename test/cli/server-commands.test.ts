import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Failure } from '../../src/kernel/failure.ts'
import { openCliRig, vidimus, type CliRig } from './rig.ts'

let rig: CliRig
let directory: string
beforeAll(async () => {
  rig = await openCliRig()
  directory = mkdtempSync(join(tmpdir(), 'vp-'))
})
afterAll(async () => {
  await rig[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true })
})

const reasonOf = (thrown: unknown): string | undefined => (thrown instanceof Failure ? thrown.reason : undefined)
const agentId = 'spiffe://example.org/spire/agent/join_token/one'
const created = (...more: string[]) => rig.vidimus('entry', 'create', '--parent-id', agentId, '--selector', 'unix:uid:1000', ...more)

describe('entries', () => {
  test('of another trust domain, or without a usable id, are refused by the server with its reason', async () => {
    const foreign = await created('--spiffe-id', 'spiffe://other.test/web')
    expect(foreign.code).toBe(1)
    expect((foreign.thrown as Failure).message).toContain('other.test')
    expect(foreign.out).toBe('')
    const badId = await created('--spiffe-id', 'spiffe://example.org/web', '--id', 'a b/c')
    expect(badId.code).toBe(1)
    expect(await rig.vidimus('entry', 'show')).toMatchObject({ code: 0, out: 'no entries\n' })
  })

  test('that are not there are not shown and not deleted: exit code 1', async () => {
    const shown = await rig.vidimus('entry', 'show', '--id', 'nope')
    expect([shown.code, reasonOf(shown.thrown)]).toEqual([1, 'entry.not-found'])
    const deleted = await rig.vidimus('entry', 'delete', 'nope')
    expect(deleted.code).toBe(1)
    expect(deleted.out).toContain('not deleted nope: ')
  })

  test('are created, shown, found by what they say, and deleted, as text and as JSON', async () => {
    const made = await created(
      '--spiffe-id',
      'spiffe://example.org/web',
      '--id',
      'web-1',
      '--x509-ttl',
      '10m',
      '--dns-name',
      'web.test',
      '--hint',
      'front',
      '--output',
      'json',
    )
    expect(made.code).toBe(0)
    expect(made.json()).toMatchObject({
      created: true,
      entry: {
        id: 'web-1',
        spiffeId: 'spiffe://example.org/web',
        parentId: agentId,
        selectors: ['unix:uid:1000'],
        x509SvidTtlSeconds: 600,
        jwtSvidTtlSeconds: 0,
        dnsNames: ['web.test'],
        hint: 'front',
        revision: 0,
        createdAt: '2026-01-01T00:00:00Z',
      },
    })
    const again = await created('--spiffe-id', 'spiffe://example.org/web')
    expect([again.code, again.out]).toEqual([1, expect.stringContaining('exists already, unchanged\n')])
    expect((await created('--spiffe-id', 'spiffe://example.org/db')).code).toBe(0)

    const shown = await rig.vidimus('entry', 'show', '--spiffe-id', 'spiffe://example.org/web')
    expect(shown.out).toBe(
      'id:        web-1\nspiffe id: spiffe://example.org/web\nparent id: spiffe://example.org/spire/agent/join_token/one\nselector:  unix:uid:1000\n' +
        "x509 ttl:  10m\njwt ttl:   the server's default\ndns names: web.test\nhint:      front\nrevision:  0\n",
    )
    expect((await rig.vidimus('entry', 'show', '--output', 'json')).json()).toMatchObject({ entries: [{}, {}] })
    const deleted = await rig.vidimus('entry', 'delete', 'web-1', 'nope', '--output', 'json')
    expect(deleted.code, 'one of two').toBe(1)
    expect(deleted.json()).toMatchObject({
      results: [
        { id: 'web-1', deleted: true },
        { id: 'nope', deleted: false },
      ],
    })
  })
})

describe('what entries add to their SVIDs', () => {
  const store = ['--spiffe-id', 'spiffe://example.org/store', '--id', 'store-1']

  test.for([
    ['a subject that is no JSON', ['--subject', 'OU=Storage'], 'not valid JSON'],
    ['an attribute that is no text', ['--subject', '{"organization":1}'], '`organization` is not a text'],
    ['an attribute that may not be chosen', ['--subject', '{"title":"Dr"}'], 'expected country, '],
    ['a reserved claim', ['--claims', '{"aud":"x"}'], '`aud` is reserved'],
    ['a claim that the server does not allow', ['--claims', '{"role":"x"}'], '`svid.additions.claims` of the server allows tier, groups'],
  ] as const)('%s is refused, and the text says why', async ([, flags, text]) => {
    const { code, thrown } = await created(...store, ...flags)
    expect(code).not.toBe(0)
    expect((thrown as Failure).message).toContain(text)
  })

  test('is created, shown, changed and taken away', async () => {
    const made = await created(...store, '--subject', '{"organizationalUnit":"Storage"}', '--claims', '{"tier":"gold","groups":["a"]}')
    expect([made.code, made.out]).toEqual([
      0,
      expect.stringContaining('subject:   {"organizationalUnit":"Storage"}\nclaims:    {"tier":"gold"'),
    ])
    const changed = await rig.vidimus('entry', 'update', 'store-1', '--claims', '{"tier":"silver"}', '--x509-ttl', '5m', '--output', 'json')
    expect(changed.json()).toMatchObject({
      entry: { revision: 1, x509SvidTtlSeconds: 300, subject: { organizationalUnit: 'Storage' }, claims: { tier: 'silver' } },
    })
    expect((await rig.vidimus('entry', 'update', 'store-1', '--subject', '{}', '--claims', '{}')).code).toBe(0)
    const shown = await rig.vidimus('entry', 'show', '--id', 'store-1')
    expect(shown.out).not.toMatch(/subject|claims/)
    expect(shown.out).toContain('revision:  2')
    expect(reasonOf((await rig.vidimus('entry', 'update', 'nope', '--hint', 'x')).thrown)).toBe('entry.not-found')
  })
})

describe('a file of entries', () => {
  const importing = (content: string) => {
    const file = join(directory, 'entries.json')
    writeFileSync(file, content)
    return rig.vidimus('entry', 'import', file, '--output', 'json')
  }
  const one = (more: object) =>
    JSON.stringify({ entries: [{ spiffeId: 'spiffe://example.org/imported', parentId: agentId, selectors: ['unix:uid:7'], ...more }] })

  test.for([
    ['something else than entries', '{"entries":[],"more":1}', '`more` is not expected'],
    ['a name twice', '{"entries":[],"entries":[]}', 'occurs twice'],
    ['a field that is none', one({ tll: 5 }), 'tll'],
    ['a selector that is none', one({ selectors: ['unix'] }), '`entries[0].selectors[0]`'],
    ['a reserved claim', one({ claims: { exp: 1 } }), '`entries[0].claims`: the claim `exp` is reserved'],
    ['a moment that is none', one({ expiresAt: 'tomorrow' }), '`entries[0].expiresAt`'],
  ] as const)('with %s is refused as a whole', async ([, content, text]) => {
    const { code, thrown } = await importing(content)
    expect(code).not.toBe(0)
    expect((thrown as Failure).message).toContain(text)
  })

  test('gives back what `entry show` printed, and says of each entry what became of it', async () => {
    const { code, json } = await importing(
      one({ claims: { tier: 'gold' }, subject: { organization: 'Team A' }, x509SvidTtlSeconds: 60, expiresAt: '2027-01-01T00:00:00Z' }),
    )
    expect(code).toBe(0)
    const [{ id }] = (json() as { results: [{ id: string }] }).results
    const shown = (await rig.vidimus('entry', 'show', '--id', id, '--output', 'json')).out
    expect(JSON.parse(shown)).toMatchObject({
      entries: [{ claims: { tier: 'gold' }, subject: { organization: 'Team A' }, x509SvidTtlSeconds: 60 }],
    })
    await rig.vidimus('entry', 'delete', id)
    expect((await importing(shown)).json()).toMatchObject({ results: [{ id, created: true }] })
    expect((await rig.vidimus('entry', 'show', '--id', id, '--output', 'json')).out).toBe(shown)
    expect((await importing(shown)).json()).toMatchObject({ results: [{ id, created: false }] })
    const failed = await importing(one({ claims: { role: 'x' }, selectors: ['unix:uid:8'] }))
    expect([failed.code, failed.json()]).toMatchObject([
      1,
      { results: [{ created: false, why: expect.stringContaining('`role`') as string }] },
    ])
  })
})

describe('join tokens', () => {
  test('that would live for ever are refused', async () => {
    const { code, thrown } = await rig.vidimus('token', 'generate', '--ttl', '3650d')
    expect([code, reasonOf(thrown)]).toEqual([1, 'join-token.bad-ttl'])
  })

  test('are printed alone on a line, so that they can be piped into a file', async () => {
    const { code, out } = await rig.vidimus('token', 'generate')
    expect(code).toBe(0)
    expect(out).toMatch(/^[0-9a-f-]{36}\n$/)
    const { json } = await rig.vidimus('token', 'generate', '--ttl', '1h', '--spiffe-id', 'spiffe://example.org/node', '--output', 'json')
    expect(json()).toEqual({ token: expect.stringMatching(/^[0-9a-f-]{36}$/) as string, expiresAt: '2026-01-01T01:00:00Z' })
  })
})

describe('agents', () => {
  test('that never joined are told as such', async () => {
    for (const verb of ['show', 'ban', 'evict', 'release']) {
      const { code, thrown } = await rig.vidimus('agent', verb, 'spiffe://example.org/spire/agent/join_token/nobody')
      expect([verb, code, reasonOf(thrown)]).toEqual([verb, 1, 'node.not-found'])
    }
  })

  test('are listed, shown, banned and evicted', async () => {
    expect((await rig.vidimus('agent', 'list')).out).toContain('no agent has joined; `vidimus token generate` makes a token for the first')
    const { node } = await rig.server.join('two')
    const list = await rig.vidimus('agent', 'list')
    expect(list.out.split('\n')[0]).toMatch(/^AGENT +ATTESTED BY +STATE +CERTIFICATE UNTIL +VERSION$/)
    expect(list.out).toMatch(new RegExp(`^${node.id} +join_token +joined +2026-01-01T`, 'm'))
    expect((await rig.vidimus('agent', 'ban', node.id)).out).toBe(`banned ${node.id}; at its next call it stops handing out identities\n`)
    expect((await rig.vidimus('agent', 'show', node.id, '--output', 'json')).json()).toMatchObject({
      id: node.id,
      banned: true,
      attestationType: 'join_token',
    })
    expect((await rig.vidimus('agent', 'evict', node.id, '--output', 'json')).json()).toEqual({ id: node.id, evicted: true })
    expect((await rig.vidimus('agent', 'list', '--output', 'json')).json()).toEqual({ agents: [] })
  })
})

describe('C-29 an agent whose identity was copied', () => {
  const frozen = {
    at: Date.UTC(2026, 0, 1),
    superseded: { serial: 'ff', address: '198.51.100.9' },
    successor: { serial: '10', address: '192.0.2.7' },
  }

  test('is shown with both serials and addresses, and may be released once', async () => {
    const { id } = (await rig.server.join('copied')).node
    const release = () => rig.vidimus('agent', 'release', id)
    expect(reasonOf((await release()).thrown)).toBe('node.not-frozen')
    await rig.server.store.nodes.change(id, (node) => ({ ...node, frozen }))
    expect((await rig.vidimus('agent', 'list')).out).toMatch(new RegExp(`^${id} +join_token +frozen `, 'm'))
    const { out } = await rig.vidimus('agent', 'show', id)
    expect(out).toMatch(/^state: +frozen$/m)
    expect(out).toContain('serial 255 was used again by 198.51.100.9')
    expect(out).toContain('serial 16 had replaced it, used first by 192.0.2.7')
    expect((await rig.vidimus('agent', 'show', id, '--output', 'json')).json()).toMatchObject({
      frozen: { at: '2026-01-01T00:00:00Z', superseded: { serial: '255' }, successor: { address: '192.0.2.7' } },
    })
    expect((await release()).out).toContain(`released ${id}; none of its certificates is accepted`)
    expect((await rig.vidimus('agent', 'show', id)).out).toMatch(/^state: +released$/m)
  })
})

describe('the trust bundle', () => {
  test('is printed as PEM, as a SPIFFE bundle document, and as JSON with both', async () => {
    expect((await rig.vidimus('bundle', 'show')).out).toMatch(/^-----BEGIN CERTIFICATE-----\n[^]+-----END CERTIFICATE-----\n$/)
    const document = JSON.parse((await rig.vidimus('bundle', 'show', '--format', 'spiffe')).out) as { keys: { use: string }[] }
    expect(document.keys.map(({ use }) => use).sort()).toEqual(['jwt-svid', 'x509-svid'])
    expect((await rig.vidimus('bundle', 'show', '--output', 'json')).json()).toMatchObject({ trustDomain: 'example.org', document })
  })
})

describe('policies', () => {
  const file = (name: string, content: string): string => {
    const path = join(directory, name)
    writeFileSync(path, content)
    return path
  }
  const good =
    'apiVersion: vidimus.dev/v1\nkind: AuthorizationPolicy\nmetadata: { name: reads }\nspec:\n  identities: [spiffe://example.org/db]\n  action: ALLOW\n  rules:\n    - from: [{ source: { spiffeIds: [spiffe://example.org/web] } }]\n'
  const bad = good.replace('action: ALLOW', 'acton: ALLOW')

  test('with an unknown field are refused with line and column, and nothing is applied', async () => {
    const path = file('bad.yaml', bad)
    const checked = await vidimus(['policy', 'check', path])
    expect([checked.code, checked.thrown]).toEqual([1, undefined])
    expect(checked.out).toBe(
      `the policies have 1 mistake\n  ${path}:6:3: \`spec.acton\`: unknown key \`acton\`: did you mean \`action\`?\n`,
    )
    const inJson = await vidimus(['policy', 'check', path, '--output', 'json'])
    expect(inJson.json()).toMatchObject({ valid: false, problems: [{ document: path, line: 6, column: 3, path: 'spec.acton' }] })
    const applied = await rig.vidimus('policy', 'apply', path)
    expect([applied.code, reasonOf(applied.thrown), applied.out]).toEqual([1, 'policy.invalid', ''])
    expect((await rig.vidimus('policy', 'list')).out).toBe('no policies were applied: nothing is allowed\n')
    expect(reasonOf((await vidimus(['policy', 'test', path])).thrown)).toBe('policy.invalid')
  })

  test('that are not there, or only their tests, are a mistake of the command line: an empty set would end every permission', async () => {
    const tests = file('tests-only.yaml', 'tests: []\n')
    const missing = await rig.vidimus('policy', 'apply', join(directory, 'nowhere'))
    expect([missing.code, reasonOf(missing.thrown)]).toEqual([2, 'usage.no-file'])
    for (const verb of ['check', 'apply']) {
      const outcome = await vidimus(['policy', verb, tests, ...(verb === 'apply' ? ['--server-socket', rig.socket] : [])])
      expect([verb, outcome.code, reasonOf(outcome.thrown) ?? 'policy.invalid']).not.toContain(0)
    }
  })

  test('are checked, applied and listed', async () => {
    const path = file('good.yaml', good)
    expect((await vidimus(['policy', 'check', path])).out).toBe('1 policy in 1 file: all valid\n')
    const applied = await rig.vidimus('policy', 'apply', path)
    expect([applied.code, applied.out]).toEqual([
      0,
      expect.stringMatching(/^1 file in force as version \S+, serial 1\n  added     good.yaml\n$/),
    ])
    const list = await rig.vidimus('policy', 'list')
    expect(list.out).toContain('applied 2026-01-01T00:00:00Z')
    expect(list.out).toMatch(/^POLICY +ACTION +RULES\n.*reads +ALLOW +1\n$/m)
    expect((await rig.vidimus('policy', 'list', '--output', 'json')).json()).toMatchObject({
      policies: [{ action: 'ALLOW', rules: 1 }],
      documents: [{ name: 'good.yaml', text: good }],
    })
  })
})

describe('releases of policies', () => {
  const file = (name: string, content: string): string => {
    const path = join(directory, name)
    writeFileSync(path, content)
    return path
  }
  const policy = (name: string) =>
    `apiVersion: vidimus.dev/v1\nkind: AuthorizationPolicy\nmetadata: { name: ${name} }\nspec:\n  identities: [spiffe://example.org/db]\n`

  test('are looked at before, listed after, and taken back in one step', async () => {
    const [a, b] = [file('rel-a.yaml', policy('a')), file('rel-b.yaml', policy('b'))]
    await rig.vidimus('policy', 'apply', '--prune', a)
    const dry = await rig.vidimus('policy', 'apply', '--dry-run', '--prune', b)
    expect(dry.out).toContain(
      'a dry run: nothing has changed\n  would be added     rel-b.yaml\n  would be removed   rel-a.yaml\n\nno request is decided',
    )
    const opens = file('rel-b.yaml', `${policy('b')}  requirePeer: false\n  rules: [{ to: [{ operation: { paths: [/open] } }] }]\n`)
    expect((await rig.vidimus('policy', 'apply', '--dry-run', opens)).out).toMatch(
      /\n\nat workloads with identity .*\n  newly allowed: path `\/open`\n/,
    )
    const candidate = await rig.vidimus('policy', 'shadow', 'start', opens)
    expect(candidate.out).toMatch(/^2 files tried as version .*\n\nat workloads with .*\n  newly allowed: path `\/open`\n/)
    await rig.vidimus('policy', 'shadow', 'stop')
    const istio = await rig.vidimus('policy', 'apply', '--dry-run', '--compat', 'istio', a)
    expect(istio.out).toContain('unknown (environment): what is in force is read in another mode')
    file('rel-b.yaml', policy('b'))
    expect((await rig.vidimus('policy', 'apply', b)).out).toContain('  added     rel-b.yaml\n  1 file unchanged\n')
    const history = (await rig.vidimus('policy', 'history', '--output', 'json')).json() as {
      sets: { serial: number; documents: string[] }[]
    }
    expect(history.sets.slice(0, 2).map(({ documents }) => documents)).toEqual([['rel-a.yaml', 'rel-b.yaml'], ['rel-a.yaml']])
    expect((await rig.vidimus('policy', 'history')).out).toMatch(/^SERIAL +VERSION +APPLIED +FILES +MODE +SIGNED +BY\n/)
    expect((await rig.vidimus('policy', 'rollback')).out).toContain('  removed   rel-b.yaml\n')
    const back = await rig.vidimus('policy', 'rollback', '--to', String(history.sets[0]!.serial))
    expect(back.out).toContain('  added     rel-b.yaml\n')
    expect(reasonOf((await rig.vidimus('policy', 'rollback', '--to', '4711')).thrown)).toBe('policy.no-such-set')
  })

  test('are signed by a key in a file, whose content no error shows', async () => {
    const a = file('sign-a.yaml', policy('a'))
    const { privateKey } = generateKeyPairSync('ed25519')
    const key = file('signer.pem', privateKey.export({ format: 'pem', type: 'pkcs8' }))
    const out = join(directory, 'policies.sig')
    const signed = await vidimus(['policy', 'sign', '--key', key, '--serial', '7', '--out', out, a])
    expect(signed.out).toMatch(/^signature: .*policies\.sig\nserial: +7\nexpires: +2026-04-01T00:00:00Z \(in 90d\)\nfiles: +1\n$/)
    const applied = await rig.vidimus('policy', 'apply', '--signature', out, a)
    expect([applied.code, applied.out]).toEqual([0, expect.stringContaining('sign-a.yaml')])
    expect((await rig.vidimus('policy', 'list')).out).toContain(', signed\n')
    const noKey = await vidimus(['policy', 'sign', '--key', file('no-key.pem', 'SECRET-TEXT'), '--serial', '7', a])
    expect([noKey.code, reasonOf(noKey.thrown), String(noKey.thrown).includes('SECRET-TEXT')]).toEqual([2, 'usage.no-key', false])
  })

  test('can be tried before they are in force', async () => {
    const a = file('try-a.yaml', policy('tried'))
    expect((await rig.vidimus('policy', 'shadow', 'report')).out).toContain('no set is tried')
    expect((await rig.vidimus('policy', 'shadow', 'start', '--prune', a)).out).toMatch(/^1 file tried as version /)
    const { candidate } = rig.server.server.policies.inForce.current
    rig.server.server.shadow.take('an agent', {
      candidateVersion: candidate!.version,
      run: 'r',
      unlisted: 0,
      counts: [
        {
          workload: 'spiffe://example.org/db',
          allowed: true,
          candidateAllows: false,
          rule: '',
          count: 3,
          peer: 'spiffe://example.org/web',
          method: 'GET',
          path: '/x',
        },
        {
          workload: 'spiffe://example.org/db',
          allowed: true,
          candidateAllows: true,
          rule: 'r',
          count: 40,
          peer: '',
          method: 'GET',
          path: '/',
        },
      ],
    })
    const report = await rig.vidimus('policy', 'shadow', 'report', '--fail-on-change')
    expect([report.code, report.out]).toEqual([
      1,
      expect.stringContaining('43 requests at 1 agent: 3 would be decided otherwise, 40 alike'),
    ])
    expect(report.out).toMatch(/^newly denied +3 +spiffe:\/\/example.org\/db +no rule allows it +spiffe:\/\/example.org\/web GET \/x$/m)
    expect((await rig.vidimus('policy', 'shadow', 'stop', '--output', 'json')).json()).toMatchObject({ changed: 3, alike: 40 })
    expect(reasonOf((await rig.vidimus('policy', 'shadow', 'stop')).thrown)).toBe('policy.no-candidate')
  })

  test('of two files with one name are a mistake of the command line', async () => {
    const [one, two] = [join(directory, 'one'), join(directory, 'two')]
    for (const folder of [one, two]) {
      mkdirSync(folder)
      writeFileSync(join(folder, 'same.yaml'), policy(folder === one ? 'a' : 'b'))
    }
    expect(reasonOf((await rig.vidimus('policy', 'apply', one, two)).thrown)).toBe('usage.same-name')
  })
})

describe('health', () => {
  test('of a server that is not well is exit code 1', async () => {
    expect(await rig.vidimus('health')).toMatchObject({ code: 0, out: 'the server is well\n' })
    rig.health.set({ serving: false, complaints: ['no'] })
    expect(await rig.vidimus('health')).toMatchObject({ code: 1, out: 'the server is not well: its log says why\n' })
    expect((await rig.vidimus('health', '--output', 'json')).json()).toEqual({ healthy: false })
  })
})
