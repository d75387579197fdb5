import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Context, HeldX509Svid } from '../../src/cli/context.ts'
import { Failure } from '../../src/kernel/failure.ts'
import { operatorApi, vidimus, type Started, workloadApi } from './rig.ts'

const svid: HeldX509Svid = {
  spiffeId: 'spiffe://example.org/web',
  hint: '',
  serial: '0a',
  notBefore: 1_767_225_600_000,
  notAfter: 1_767_229_200_000,
  chainPem: '-----BEGIN CERTIFICATE-----\nchain\n-----END CERTIFICATE-----\n',
  privateKeyPem: 'the-private-key-canary',
}
const noIdentity = new Failure('permission_denied', 'rpc.permission_denied', { public: 'no identity issued' })

describe('fetch', () => {
  test('of a process without identity fails with what the agent says, and writes nothing', async () => {
    const written: string[] = []
    const outcome = await vidimus(['fetch', 'x509', '--write', '/nowhere'], {
      openWorkloadApi: () => workloadApi({ fetchX509: () => Promise.reject(noIdentity) }),
      disk: { write: async (path: string) => void written.push(path) } as unknown as Context['disk'],
    })
    expect(outcome).toMatchObject({ code: 1, out: '', thrown: noIdentity })
    expect(written).toEqual([])
  })

  test('x509 shows everything but the key, and writes the key where only its owner reads it', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'vf-'))
    const addresses: (string | undefined)[] = []
    const openWorkloadApi = (address: string | undefined) => {
      addresses.push(address)
      return workloadApi({ fetchX509: async () => ({ svids: [svid], bundles: new Map([['example.org', 'the bundle\n']]) }) })
    }
    try {
      const shown = await vidimus(['fetch', 'x509'], { openWorkloadApi })
      expect(shown.out).toBe(
        'spiffeId:  spiffe://example.org/web\nserial:    0a\nnotBefore: 2026-01-01T00:00:00Z\nnotAfter:  2026-01-01T01:00:00Z\n',
      )
      const outcome = await vidimus(
        ['fetch', 'x509', '--socket', 'unix:///run/a.sock', '--write', join(directory, 'new', 'svid'), '--output', 'json'],
        { openWorkloadApi },
      )
      expect(outcome.code).toBe(0)
      expect(outcome.out).not.toContain('canary')
      expect(outcome.json()).toMatchObject({
        svids: [{ spiffeId: svid.spiffeId, chain: svid.chainPem }],
        bundles: { 'example.org': 'the bundle\n' },
      })
      expect(addresses).toEqual([undefined, 'unix:///run/a.sock'])
      const at = (name: string) => join(directory, 'new', 'svid', name)
      expect((outcome.json() as { written: string[] }).written).toEqual([at('svid.0.pem'), at('svid.0.key'), at('bundle.example.org.pem')])
      expect(readFileSync(at('svid.0.key'), 'utf8')).toBe(svid.privateKeyPem)
      expect(statSync(at('svid.0.key')).mode & 0o777).toBe(0o600)
      expect(readFileSync(at('bundle.example.org.pem'), 'utf8')).toBe('the bundle\n')
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  test('jwt and bundles print as text and as JSON', async () => {
    const openWorkloadApi = () =>
      workloadApi({
        fetchJwt: async (audience, spiffeId) => [{ spiffeId: spiffeId ?? 'spiffe://example.org/web', token: audience.join('+'), hint: '' }],
        fetchBundles: async () => ({ x509: new Map([['example.org', 'pem\n']]), jwt: new Map([['example.org', { keys: [] }]]) }),
      })
    expect((await vidimus(['fetch', 'jwt', '--audience', 'a', '--audience', 'b'], { openWorkloadApi })).out).toBe(
      'spiffe://example.org/web\na+b\n',
    )
    expect(
      (
        await vidimus(['fetch', 'jwt', '--audience', 'a', '--spiffe-id', 'spiffe://example.org/x', '--output', 'json'], { openWorkloadApi })
      ).json(),
    ).toEqual({ svids: [{ spiffeId: 'spiffe://example.org/x', token: 'a', hint: '' }] })
    expect((await vidimus(['fetch', 'bundles'], { openWorkloadApi })).out).toContain('example.org\npem\n')
    expect((await vidimus(['fetch', 'bundles', '--output', 'json'], { openWorkloadApi })).json()).toEqual({
      x509: { 'example.org': 'pem\n' },
      jwt: { 'example.org': { keys: [] } },
    })
  })

  test('wit writes keys where it is told to, for their owner only, and shows them to nobody', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'vidimus-wit-'))
    try {
      const svid = { spiffeId: 'spiffe://example.org/web', token: 'the.to.ken', hint: '', privateKeyJwk: '{"d":"secret"}' }
      const openWorkloadApi = () => workloadApi({ fetchWit: async (spiffeId) => [{ ...svid, hint: spiffeId ?? '' }] })
      const shown = await vidimus(['fetch', 'wit'], { openWorkloadApi })
      expect(shown.out).toBe('spiffe://example.org/web\nthe.to.ken\n')
      const outcome = await vidimus(['fetch', 'wit', '--spiffe-id', 'x', '--write', directory, '--output', 'json'], { openWorkloadApi })
      expect(outcome.json()).toEqual({
        svids: [{ spiffeId: svid.spiffeId, hint: 'x', token: svid.token }],
        written: [join(directory, 'wit.0.jwt'), join(directory, 'wit.0.jwk')],
      })
      expect(readFileSync(join(directory, 'wit.0.jwk'), 'utf8')).toBe(svid.privateKeyJwk)
      expect(statSync(join(directory, 'wit.0.jwk')).mode & 0o777).toBe(0o600)
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  test('validate jwt judges the token in a file; a refused one is exit code 1', async () => {
    const disk = { read: async () => ' the.to.ken\n' } as unknown as Context['disk']
    const asked: string[] = []
    const openWorkloadApi = () =>
      workloadApi({
        async validateJwt(audience, token) {
          asked.push(audience, token)
          return { spiffeId: 'spiffe://example.org/web', claims: { sub: 'x' } }
        },
      })
    const good = await vidimus(['validate', 'jwt', '--audience', 'a', '--output', 'json'], { openWorkloadApi, disk })
    expect(good.json()).toEqual({ spiffeId: 'spiffe://example.org/web', claims: { sub: 'x' } })
    expect(asked).toEqual(['a', 'the.to.ken'])
    const refused = new Failure('invalid_argument', 'rpc.invalid_argument', { public: 'the token expired' })
    const bad = await vidimus(['validate', 'jwt', '--audience', 'a'], {
      openWorkloadApi: () => workloadApi({ validateJwt: () => Promise.reject(refused) }),
      disk,
    })
    expect(bad).toMatchObject({ code: 1, out: '', thrown: refused })
  })
})

describe('explain workload', () => {
  const explanation = {
    verdict: 'no entry matches',
    selectors: ['unix:uid:1000'],
    considered: [
      {
        entryId: 'e1',
        spiffeId: 'spiffe://example.org/web',
        missingSelectors: ['unix:path:/usr/bin/web'],
        matches: false,
        note: 'its SVID is not signed yet',
      },
    ],
  }
  const explain = (found: typeof explanation, ...more: string[]) =>
    vidimus(['explain', 'workload', '--pid', '42', ...more], { openOperatorApi: () => operatorApi({ explainWorkload: async () => found }) })

  test('names the selector that is missing; no identity is exit code 1, because the answer is no', async () => {
    const { code, out } = await explain(explanation)
    expect(code).toBe(1)
    expect(out).toBe(
      'process 42: no entry matches\nselectors seen:\n  unix:uid:1000\nentries considered:\n  does not match: spiffe://example.org/web (entry e1)\n    missing: unix:path:/usr/bin/web\n    its SVID is not signed yet\n',
    )
    expect((await explain(explanation, '--output', 'json')).json()).toMatchObject({ pid: 42, verdict: 'no entry matches' })
  })

  test('of a process with an identity is exit code 0', async () => {
    expect((await explain({ ...explanation, considered: [{ ...explanation.considered[0]!, matches: true }] })).code).toBe(0)
    expect((await explain({ ...explanation, considered: [] })).out).toContain('entries considered: none, this agent has no entries')
  })
})

test('health --agent says what is wrong, and what the agent holds', async () => {
  const openOperatorApi = () =>
    operatorApi({
      status: async () => ({
        spiffeId: 'spiffe://example.org/agent',
        ready: false,
        complaints: ['no sync for 2m'],
        facts: [
          ['policy version', 'v1'],
          ['entries', 3],
        ],
      }),
    })
  const { code, out } = await vidimus(['health', '--agent'], { openOperatorApi })
  expect(code).toBe(1)
  expect(out).toBe(
    'the agent is not well\n  no sync for 2m\nspiffe id:      spiffe://example.org/agent\npolicy version: v1\nentries:        3\n',
  )
  expect((await vidimus(['health', '--agent', '--output', 'json'], { openOperatorApi })).json()).toEqual({
    healthy: false,
    spiffeId: 'spiffe://example.org/agent',
    complaints: ['no sync for 2m'],
    policyVersion: 'v1',
    entries: 3,
  })
})

test('server run and agent run are started with the file and the settings that were named', async () => {
  const started: Started[] = []
  const programs = {
    run: async (kind, choice) => void started.push({ kind, choice }),
    effectiveConfig: () => Promise.reject(new Error('not asked')),
  } satisfies Context['programs']
  await vidimus(['server', 'run', '--set', 'trustDomain=example.org', '--set', 'a.b=c'], { programs })
  await vidimus(['agent', 'run', '--config', 'agent.yaml'], { programs })
  expect(started).toEqual([
    { kind: 'server', choice: { path: undefined, overrides: ['trustDomain=example.org', 'a.b=c'] } },
    { kind: 'agent', choice: { path: 'agent.yaml', overrides: [] } },
  ])
})
