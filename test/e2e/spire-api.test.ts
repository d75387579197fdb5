import { randomUUID } from 'node:crypto'
import { mkdir, readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { hex } from '../../src/kernel/bytes.ts'
import { parseSpiffeId, type SpiffeId } from '../../src/spiffe/id.ts'
import { upstreamFiles, writeUpstream } from '../ca/upstream-files.ts'
import { TestCa } from '../support/test-ca.ts'
import { describeWithPeer } from '../support/peers.ts'
import { idOf, Installation, runClient, type ServerProgram } from '../support/programs.ts'

/** An agent that the client attested: the folder with its certificate and key. */
interface Attested {
  readonly folder: string
  readonly id: SpiffeId
}

describeWithPeer('spire-api', 'a client of SPIRE on the unmodified spire-api-sdk', (found) => {
  let installation: Installation
  let server: ServerProgram
  let bundle: string

  const client = (...args: readonly string[]) => runClient(found.path, args)
  const asOperator = (...args: readonly string[]) => client(...args, '--socket', server.adminSocket)
  const overTls = (...args: readonly string[]) => client(...args, '--address', server.address, '--bundle', bundle)
  const asAgent = ({ folder }: Attested, ...args: readonly string[]) => overTls(...args, '--agent', folder)

  async function token(): Promise<string> {
    return (await asOperator('token')).last['token'] as string
  }

  async function attested(): Promise<Attested> {
    const folder = installation.path(`spire-${randomUUID().slice(0, 8)}`)
    const { last } = await overTls('attest', '--token', await token(), '--out', folder)
    return { folder, id: parseSpiffeId(last['id'] as string) }
  }

  async function created(...args: readonly string[]): Promise<string> {
    const { last } = await asOperator('entries', 'create', ...args)
    return (last['entry'] as { id: string }).id
  }

  beforeAll(async () => {
    installation = await Installation.open()
    server = await installation.server()
    bundle = await installation.write('bundle.pem', await server.bundlePem())
  })

  afterAll(async () => {
    await installation[Symbol.asyncDispose]()
  })

  describe('attestation with a join token', () => {
    test('A-1 a token is accepted once', async () => {
      const once = await token()
      const first = await overTls('attest', '--token', once, '--out', installation.path('once'))
      expect(first.last).toMatchObject({ id: idOf(`/spire/agent/join_token/${once}`), chain: 1, reattestable: false })
      expect(await readFile(installation.path('once/agent.id'), 'utf8')).toBe(first.last['id'])
      const { last } = await overTls('attest', '--token', once, '--out', installation.path('twice'))
      expect(last['code']).not.toBe('OK')
      expect(last['error']).toContain('join token')
    })

    test('a token that was never made is refused', async () => {
      const { last } = await overTls('attest', '--token', randomUUID(), '--out', installation.path('never'))
      expect(last['error']).toContain('join token')
    })
  })

  describe('another trust domain', () => {
    test('the client refuses a server that is not of the trust domain it wants', async () => {
      const { last } = await overTls('bundle', '--trust-domain', 'other.test')
      expect(last).toMatchObject({
        code: 'Unavailable',
        error: expect.stringContaining(`the server is ${idOf('/spire/server')}`) as string,
      })
    })

    test('a server and an agent of another trust domain are refused', async () => {
      const other = await installation.server({ trustDomain: 'other.test' })
      const otherBundle = await installation.write('other.pem', await other.bundlePem())
      const strangers = await overTlsOf(
        other,
        otherBundle,
        'attest',
        '--token',
        await other.joinToken(),
        '--out',
        installation.path('other'),
      )
      expect(strangers.last['id']).toMatch(/^spiffe:\/\/other\.test\/spire\/agent\//)

      const wrongServer = await overTlsOf(other, bundle, 'bundle')
      expect(wrongServer.last).toMatchObject({ code: 'Unavailable', error: expect.stringContaining('x509') as string })
      for (const command of ['sync', 'authorized', 'renew']) {
        const { last } = await overTls(command, '--agent', installation.path('other'))
        expect(last['code'], command).toMatch(/PermissionDenied|Unauthenticated|Unavailable/)
      }
    })

    const overTlsOf = (other: ServerProgram, roots: string, ...args: readonly string[]) =>
      client(...args, '--address', other.address, '--bundle', roots)
  })

  describe('an agent', () => {
    let agent: Attested
    let entry: string

    beforeAll(async () => {
      agent = await attested()
      entry = await created(
        '--id',
        idOf('/web'),
        '--parent',
        agent.id,
        '--selector',
        'unix:uid:1000',
        '--dns',
        'web.example.org',
        '--hint',
        'main',
      )
    })

    test('is told of its entries, and of no others', async () => {
      const neighbour = await attested()
      const theirs = await created('--id', idOf('/theirs'), '--parent', neighbour.id, '--selector', 'unix:uid:1000')
      for (const command of ['sync', 'authorized']) {
        const { last } = await asAgent(agent, command)
        expect(last['entries'], command).toEqual([
          expect.objectContaining({ id: entry, spiffeId: { trustDomain: 'example.org', path: '/web' }, hint: 'main' }),
        ])
      }
      expect((await asAgent(agent, 'mint', '--entry', theirs)).last['code']).not.toBe('OK')
      expect((await asAgent(agent, 'jwt', '--entry', theirs, '--audience', 'db')).last['code']).not.toBe('OK')
    })

    test('has an X509-SVID issued for a workload, and it verifies', async () => {
      const { last } = await asAgent(agent, 'mint', '--entry', entry)
      expect(last['svids']).toEqual([expect.objectContaining({ id: idOf('/web'), chain: 1 })])
    })

    test('has a JWT-SVID issued for a workload', async () => {
      const { last } = await asAgent(agent, 'jwt', '--entry', entry, '--audience', 'db')
      expect(last).toMatchObject({ id: idOf('/web') })
      const claims = JSON.parse(Buffer.from((last['token'] as string).split('.')[1]!, 'base64url').toString()) as object
      expect(claims).toMatchObject({ sub: idOf('/web'), aud: ['db'] })
    })

    test('API-18 has no JWT-SVID issued without an audience', async () => {
      expect((await asAgent(agent, 'jwt', '--entry', entry)).last['code']).toBe('InvalidArgument')
    })

    test('renews its certificate, and works with the new one', async () => {
      const before = await readFile(`${agent.folder}/agent.crt`, 'utf8')
      const { last } = await asAgent(agent, 'renew')
      expect(last['id']).toBe(agent.id)
      expect(await readFile(`${agent.folder}/agent.crt`, 'utf8')).not.toBe(before)
      expect((await asAgent(agent, 'sync')).last['entries']).toHaveLength(1)
    })

    test('reads the bundle, and so does everybody', async () => {
      const { last } = await overTls('bundle')
      expect(last).toMatchObject({ trustDomain: 'example.org', jwtKeys: [expect.any(String)] })
      expect((await asAgent(agent, 'bundle')).last).toEqual(last)
      expect((await asOperator('bundle')).last).toEqual(last)
    })

    test('may not do what is an operator’s, nor may a stranger do what is an agent’s', async () => {
      for (const command of [['agents'], ['token'], ['entries', 'list'], ['entries', 'delete', '--entry', entry]]) {
        expect((await asAgent(agent, ...command)).last['code'], command.join(' ')).toBe('PermissionDenied')
        expect((await overTls(...command)).last['code'], command.join(' ')).toBe('PermissionDenied')
      }
      expect((await overTls('sync')).last['code']).toBe('PermissionDenied')
      expect((await overTls('mint', '--entry', entry)).last['code']).toBe('PermissionDenied')
    })

    test('has more than 500 entries synchronised, a page at a time', async () => {
      const big = await attested()
      const wishes = Array.from({ length: 620 }, (_, index) => ({ spiffeId: idOf(`/many/${index}`), selectors: [`unix:uid:${index}`] }))
      await server.entries(big.id, ...wishes)
      const { last } = await asAgent(big, 'sync')
      const ids = (last['entries'] as { spiffeId: { path: string } }[]).map(({ spiffeId }) => spiffeId.path)
      expect(last['revisions']).toBe(620)
      expect(new Set(ids)).toEqual(new Set(wishes.map((_, index) => `/many/${index}`)))
      expect(ids).toHaveLength(620)
    })
  })

  describe('an agent that is no longer accepted is told why, so that it knows what to do', () => {
    test('banned', async () => {
      const agent = await attested()
      await server.asOperator(({ agents }, signal) => agents.ban(agent.id, signal))
      expect((await asAgent(agent, 'sync')).last).toMatchObject({ code: 'PermissionDenied', reason: 'AGENT_BANNED' })
      expect((await asAgent(agent, 'renew')).last).toMatchObject({ code: 'PermissionDenied', reason: 'AGENT_BANNED' })
    })

    test('forgotten', async () => {
      const agent = await attested()
      await server.asOperator(({ agents }, signal) => agents.evict(agent.id, signal))
      expect((await asAgent(agent, 'sync')).last).toMatchObject({ code: 'PermissionDenied', reason: 'AGENT_NOT_ATTESTED' })
    })
  })

  describe('C-28 a forced rotation', () => {
    interface Authority {
      readonly authorityId: string
      readonly expiresAt: string
      readonly upstreamAuthoritySubjectKeyId: string
    }
    let rotated: ServerProgram
    const deed = (verb: string, kind: string, id?: string) =>
      client('authority', verb, '--kind', kind, ...(id === undefined ? [] : ['--id', id]), '--socket', rotated.adminSocket).then(
        ({ last }) => last,
      )
    const state = async (kind: string) =>
      (await deed('show', kind)) as { active: Authority | null; prepared: Authority | null; old: Authority | null }
    const told = (answer: Record<string, unknown>, field: string) => answer[field] as Authority

    beforeAll(async () => {
      rotated = await installation.server({ experimental: { witSvid: true } })
    })

    test('of WIT keys is refused where they are off, of authorities by name where there is none, and of a root where there is none above', async () => {
      const off = await asOperator('authority', 'prepare', '--kind', 'wit')
      expect(off.last).toMatchObject({ code: 'Unimplemented', error: expect.stringContaining('experimental.witSvid') as string })
      for (const kind of ['x509', 'jwt', 'wit']) {
        const { authorityId } = (await state(kind)).active!
        for (const [verb, id] of [
          ['activate', 'nobody'],
          ['taint', authorityId],
          ['revoke', authorityId],
          ['revoke', 'nobody'],
        ] as const)
          expect((await deed(verb, kind, id))['code'], `${verb} ${kind}`).toMatch(/^(FailedPrecondition|NotFound|InvalidArgument)$/)
        expect(await state(kind)).toMatchObject({ active: { authorityId }, prepared: null, old: null })
      }
      const { authorityId } = (await state('x509')).active!
      expect((await deed('taint', 'upstream', authorityId))['code']).toMatch(/^(FailedPrecondition|NotFound)$/)
    })

    test.for([
      ['x509', 'x509Authorities'],
      ['jwt', 'jwtKeys'],
      ['wit', 'witKeys'],
    ] as const)('of %s authorities is driven step by step, and each is seen in state and bundle', async ([kind, published]) => {
      const bundled = async () => ((await client('bundle', '--socket', rotated.adminSocket)).last[published] as string[]).length
      const first = (await state(kind)).active!
      expect(Number(first.expiresAt)).toBeGreaterThan(Date.now() / 1000)
      const before = await bundled()

      const next = told(await deed('prepare', kind), 'preparedAuthority')
      expect(next.authorityId).not.toBe(first.authorityId)
      expect(await state(kind)).toMatchObject({ active: first, prepared: next })
      expect(await bundled()).toBe(before + 1)

      expect(told(await deed('activate', kind, next.authorityId), 'activatedAuthority')).toEqual(next)
      expect(await state(kind)).toMatchObject({ active: next, prepared: null, old: { authorityId: first.authorityId } })

      expect((await deed('revoke', kind, first.authorityId))['code'], 'one that is not tainted').toBe('FailedPrecondition')
      expect(told(await deed('taint', kind, first.authorityId), 'taintedAuthority').authorityId).toBe(first.authorityId)
      expect((await deed('taint', kind, first.authorityId))['code'], 'twice').toBe('FailedPrecondition')
      expect(told(await deed('revoke', kind, first.authorityId), 'revokedAuthority').authorityId).toBe(first.authorityId)
      expect(await bundled()).toBe(before)
      expect(await state(kind)).toMatchObject({ active: next })
    })

    test('of a root above us: one that signs for us stays, one that was left is tainted and revoked', async () => {
      const [first, second] = [
        await TestCa.create({ at: Date.now(), name: 'first root' }),
        await TestCa.create({ at: Date.now(), name: 'second root' }),
      ]
      const folder = installation.path('upstream')
      await mkdir(folder, { mode: 0o700 })
      await writeUpstream(folder, first, first)
      rotated = await installation.server({ upstreamAuthority: { kind: 'disk', ...upstreamFiles(folder) } })
      const above = async () => (await state('x509')).active!.upstreamAuthoritySubjectKeyId
      const old = await above()
      expect(old).toBe(hex(first.certificate.subjectKeyId!))
      expect((await deed('taint', 'upstream', old))['code'], 'the root in use').toBe('FailedPrecondition')

      await writeUpstream(folder, second, first, second)
      const { authorityId } = told(await deed('prepare', 'x509'), 'preparedAuthority')
      await deed('activate', 'x509', authorityId)
      expect(await above()).toBe(hex(second.certificate.subjectKeyId!))
      expect((await deed('revoke', 'upstream', old))['code'], 'a root that is not tainted').toBe('FailedPrecondition')
      expect(await deed('taint', 'upstream', old)).toEqual({ upstreamAuthoritySubjectKeyId: old })
      expect(await deed('revoke', 'upstream', old)).toEqual({ upstreamAuthoritySubjectKeyId: old })
      expect(await above()).toBe(hex(second.certificate.subjectKeyId!))
    })

    test('is for operators alone', async () => {
      const agent = await attested()
      for (const kind of ['x509', 'jwt', 'wit'])
        for (const verb of ['show', 'prepare', 'activate', 'taint', 'revoke']) {
          const asked = ['authority', verb, '--kind', kind, '--id', 'x']
          expect((await asAgent(agent, ...asked)).last['code'], asked.join(' ')).toBe('PermissionDenied')
        }
      expect((await overTls('authority', 'taint', '--kind', 'upstream', '--id', 'x')).last['code']).toBe('PermissionDenied')
    })
  })

  describe('the private socket', () => {
    test('health says that the server serves', async () => {
      expect((await asOperator('health')).last).toEqual({ status: 'SERVING' })
    })

    test('entries are created, listed and deleted', async () => {
      const id = await created(
        '--id',
        idOf('/db'),
        '--parent',
        idOf('/node'),
        '--selector',
        'unix:uid:7',
        '--x509-ttl',
        '60',
        '--jwt-ttl',
        '30',
      )
      const list = async () => (await asOperator('entries', 'list', '--id', idOf('/db'))).last['entries']
      expect(await list()).toEqual([
        expect.objectContaining({
          id,
          x509SvidTtl: 60,
          jwtSvidTtl: 30,
          selectors: [{ type: 'unix', value: 'uid:7' }],
          revisionNumber: '0',
        }),
      ])
      expect((await asOperator('entries', 'delete', '--entry', id)).last).toEqual({ deleted: 1 })
      expect(await list()).toEqual([])
      expect((await asOperator('entries', 'delete', '--entry', id)).last['code']).toBe('NotFound')
    })

    test('an entry that exists already, one of another trust domain and one without selectors are refused', async () => {
      const wish = ['--id', idOf('/twice'), '--parent', idOf('/node'), '--selector', 'unix:uid:7']
      await created(...wish)
      expect((await asOperator('entries', 'create', ...wish)).last['code']).toBe('AlreadyExists')
      const foreign = ['--id', 'spiffe://other.test/web', '--parent', idOf('/node'), '--selector', 'unix:uid:7']
      expect((await asOperator('entries', 'create', ...foreign)).last['code']).toBe('InvalidArgument')
      expect((await asOperator('entries', 'create', '--id', idOf('/bare'), '--parent', idOf('/node'))).last['code']).toBe('InvalidArgument')
    })

    test('agents are listed', async () => {
      const agent = await attested()
      const agents = (await asOperator('agents')).last['agents'] as { id: { path: string }; attestationType: string }[]
      expect(agents.find(({ id }) => agent.id.endsWith(id.path))).toMatchObject({ attestationType: 'join_token', banned: false })
    })
  })
})
