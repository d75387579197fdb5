import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { stringify } from 'yaml'
import { Failure } from '../../src/kernel/failure.ts'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { loadAgentConfig } from '../../src/main/config/agent.ts'
import type { ConfigProblem } from '../../src/main/config/load.ts'
import { nearest } from '../../src/main/config/load.ts'
import { loadServerConfig } from '../../src/main/config/server.ts'
import { showConfig } from '../../src/main/config/show.ts'

type Load = (text: string, overrides?: readonly string[]) => object
const server: Load = (text, overrides) => loadServerConfig({ name: 'server.yaml', text }, overrides)
const agent: Load = (text, overrides) => loadAgentConfig({ name: 'agent.yaml', text }, overrides)

function refusal(load: () => unknown): Failure {
  try {
    load()
  } catch (error) {
    if (error instanceof Failure) return error
    throw error
  }
  throw new Error('it was accepted')
}

/** Every mistake, as `where path message`. */
const mistakes = (load: Load, text: string, overrides?: readonly string[]): string[] =>
  (refusal(() => load(text, overrides)).internal['problems'] as ConfigProblem[]).map(
    ({ where, path, message }) => `${where} ${path}: ${message}`,
  )

const minimalServer = 'trustDomain: example.org\n'
const minimalAgent = 'trustDomain: example.org\nserver: { host: localhost }\ntrustBundle: bundle.pem\n'

describe('a mistake is told with its place, what was expected and what was found', () => {
  const cases: readonly [what: string, load: Load, text: string, told: string][] = [
    ['a misspelt key', server, `${minimalServer}serverID: a`, 'server.yaml:2:1 serverID: unknown key `serverID`: did you mean `serverId`?'],
    [
      'a misspelt key within a section',
      server,
      `${minimalServer}listen:\n  prot: 1`,
      'server.yaml:3:3 listen.prot: unknown key `prot`: did you mean `port`?',
    ],
    [
      'a key like no other',
      server,
      `${minimalServer}log: { colour: red }`,
      'server.yaml:2:8 log.colour: unknown key `colour`: expected one of `level`, `format`',
    ],
    [
      'a misspelt key of a driver',
      server,
      `${minimalServer}store: { kind: sqlite, path: x, pth: y }`,
      'server.yaml:2:33 store.pth: unknown key `pth`: did you mean `path`?',
    ],
    [
      'a misspelt key of a driver in a list',
      agent,
      `${minimalAgent}workloadAttestors:\n  - kind: unix\n    discoverWorkloadPth: true`,
      'agent.yaml:6:5 workloadAttestors.0.discoverWorkloadPth: unknown key `discoverWorkloadPth`: did you mean `discoverWorkloadPath`?',
    ],
    [
      'a wrong kind',
      server,
      `${minimalServer}upstreamAuthority: { kind: vualt }`,
      'server.yaml:2:28 upstreamAuthority.kind: unknown kind `vualt`: did you mean `vault`?',
    ],
    [
      'a kind like no other',
      server,
      `${minimalServer}upstreamAuthority: { kind: paper }`,
      'server.yaml:2:28 upstreamAuthority.kind: unknown kind `paper`: expected one of `disk`, `self-signed`, `vault`',
    ],
    [
      'C-32 a misspelt switch for the key exchange',
      server,
      `${minimalServer}tls: { requirePostQuantm: true }`,
      'server.yaml:2:8 tls.requirePostQuantm: unknown key `requirePostQuantm`: did you mean `requirePostQuantum`?',
    ],
    [
      'a claim that a token says itself',
      server,
      `${minimalServer}svid: { additions: { claims: [tier, sub] } }`,
      'server.yaml:2:37 svid.additions.claims.1: the claim `sub` is reserved: a token says it itself, or would mean something else with it',
    ],
    [
      'an attribute that no entry may choose',
      server,
      `${minimalServer}svid: { additions: { subject: [serialNumber] } }`,
      'server.yaml:2:32 svid.additions.subject.0: expected one of `country`, `stateOrProvince`, `locality`, ',
    ],
    ['a missing kind', server, `${minimalServer}store: { path: x }`, 'server.yaml:2:8 store.kind: is missing'],
    ['a driver without a setting it needs', server, `${minimalServer}store: { kind: sqlite }`, 'server.yaml:2:8 store.path: is missing'],
    ['a missing key', server, 'log: {}', 'server.yaml:1:1 trustDomain: is missing'],
    ['a missing key within a section', agent, 'trustDomain: a\ntrustBundle: b\nserver: {}', 'agent.yaml:3:9 server.host: is missing'],
    [
      'a number where a duration belongs',
      server,
      `${minimalServer}svid: { x509: 5 }`,
      'server.yaml:2:15 svid.x509: expected a duration with its unit, for example `90s` or `1h30m`, found `5`',
    ],
    [
      'a malformed duration',
      server,
      `${minimalServer}svid: { x509: 5q }`,
      'server.yaml:2:15 svid.x509: `5q` is not a duration: expected for example `90s`, `1h30m` or `7d`',
    ],
    [
      'a duration out of range',
      server,
      `${minimalServer}ca: { lifetime: 1s }`,
      'server.yaml:2:17 ca.lifetime: `1s` is out of range: expected 30s to 3650d',
    ],
    [
      'a malformed trust domain',
      server,
      'trustDomain: Example.ORG',
      'server.yaml:1:14 trustDomain: `Example.ORG` is not a trust domain name: expected only `a-z`, `0-9`, `.`, `-` and `_`',
    ],
    [
      'a malformed SPIFFE ID',
      server,
      `${minimalServer}adminIds:\n  - spiffe://example.org/a\n  - foo`,
      'server.yaml:4:5 adminIds.1: `foo` is not a SPIFFE ID: expected it to begin with `spiffe://`',
    ],
    [
      'a port that is none',
      server,
      `${minimalServer}listen: { port: 65536 }`,
      'server.yaml:2:17 listen.port: expected at most 65535, found `65536`',
    ],
    [
      'a text for a number',
      server,
      `${minimalServer}listen: { port: http }`,
      'server.yaml:2:17 listen.port: expected a number, found `http`',
    ],
    [
      'a word of a closed set',
      server,
      `${minimalServer}log: { level: verbose }`,
      'server.yaml:2:15 log.level: expected one of `debug`, `info`, `warn`, `error`, found `verbose`',
    ],
    [
      'an unknown attestor',
      server,
      `${minimalServer}nodeAttestors: [join_tokn]`,
      'server.yaml:2:17 nodeAttestors.0: expected `join_token`, found `join_tokn`',
    ],
    ['R-11 an empty list that would admit nobody', server, `${minimalServer}nodeAttestors: []`, 'server.yaml:2:16 nodeAttestors: is empty'],
    [
      'a socket path of 108 bytes',
      server,
      `${minimalServer}adminSocket: /${'a'.repeat(107)}`,
      `server.yaml:2:14 adminSocket: \`/${'a'.repeat(107)}\` has 108 bytes: the path of a socket has at most 107`,
    ],
    [
      'EP-3 a TCP address for workloads',
      agent,
      `${minimalAgent}socket: tcp://127.0.0.1:8000`,
      `agent.yaml:4:9 socket: \`tcp://127.0.0.1:8000\` is a TCP address: the kernel says who is calling over a Unix socket alone, and no workload attestor can tell it over TCP`,
    ],
    [
      'EP-10 a TCP address with a path',
      agent,
      `${minimalAgent}socket: tcp://127.0.0.1:8000/foo`,
      'agent.yaml:4:9 socket: `tcp://127.0.0.1:8000/foo` is not a Workload API address: expected `unix:///absolute/path`, or `tcp://` with an IP address and a port',
    ],
    [
      'EP-9 a socket with an authority',
      agent,
      `${minimalAgent}socket: unix://host/path`,
      'agent.yaml:4:9 socket: `unix://host/path` is not a Workload API address: expected `unix:///absolute/path`, or `tcp://` with an IP address and a port',
    ],
    [
      'a section that is no section',
      server,
      `${minimalServer}listen: 8081`,
      'server.yaml:2:9 listen: expected a group of settings, found `8081`',
    ],
    ['a list for everything', server, '- trustDomain', 'server.yaml:1:1 : expected a group of settings, found a list'],
    ['a key that stands twice', server, 'trustDomain: a\ntrustDomain: b', 'server.yaml:2:1 : map keys must be unique'],
    [
      'two documents',
      server,
      'trustDomain: a\n---\ntrustDomain: b',
      'server.yaml:2:1 : source contains multiple documents; please use YAML.parseAllDocuments()',
    ],
    ['an alias', server, 'trustDomain: &a example.org\nserverId: *a', 'server.yaml:2:11 : `*a` is an alias: expected the value itself'],
    ['a tag', server, 'trustDomain: !env HOME', 'server.yaml:1:14 : unresolved tag: !env'],
    ['what is no YAML', server, 'trustDomain: "a', 'server.yaml:1:16 : missing closing "quote'],
    [
      '`__proto__`',
      server,
      `${minimalServer}__proto__: { x: 1 }`,
      'server.yaml:2:1 __proto__: unknown key `__proto__`: expected one of `trustDomain`',
    ],
  ]
  test.each(cases)('%s', (_what, load, text, told) => {
    expect(mistakes(load, text).map((one) => one.slice(0, told.length))).toEqual([told])
  })

  test('all of them at once, in the order of the file', () => {
    const { message, reason } = refusal(() => server('listen:\n  port: x\n  prot: 1\ntrustDoman: example.org\n'))
    expect(reason).toBe('config.invalid')
    expect(message).toBe(
      'the configuration has 4 mistakes\n' +
        '  server.yaml:1:1: `trustDomain` is missing\n' +
        '  server.yaml:2:9: `listen.port`: expected a number, found `x`\n' +
        '  server.yaml:3:3: `listen.prot`: unknown key `prot`: did you mean `port`?\n' +
        '  server.yaml:4:1: `trustDoman`: unknown key `trustDoman`: did you mean `trustDomain`?',
    )
  })

  test('a secret written into the configuration is not repeated in the error', () => {
    const canary = 's.canary-7f3a'
    const { message } = refusal(() => agent(`${minimalAgent}joinToken: ${canary}\n`))
    expect(message).toContain(
      'agent.yaml:4:12: `joinToken`: expected `{ file: PATH }` or `{ env: NAME }`: secrets are not written into the configuration',
    )
    expect(message).not.toContain('canary')
    const vault = refusal(() =>
      server(`${minimalServer}upstreamAuthority: { kind: vault, address: https://v.test, auth: { method: token, token: ${canary} } }`),
    )
    expect(vault.message).toContain('`upstreamAuthority.auth.token`')
    expect(JSON.stringify(vault.internal)).not.toContain('canary')
  })

  test('whatever stands in the file, the outcome is a configuration or a list of mistakes', () => {
    const key = fc.oneof(
      fc.constantFrom('trustDomain', 'listen', 'svid', 'store', 'kind', 'port', '__proto__', 'constructor', ''),
      fc.string(),
    )
    const leaf = fc.oneof(fc.string(), fc.double(), fc.boolean(), fc.constant(null))
    const branch = (below: fc.Arbitrary<unknown>) =>
      fc.oneof(leaf, fc.dictionary(key, below, { maxKeys: 4 }), fc.array(below, { maxLength: 3 }))
    const tree = branch(branch(branch(leaf)))
    const outcome = (text: string, overrides: readonly string[]) => {
      try {
        server(text, overrides)
      } catch (error) {
        expect(error).toBeInstanceOf(Failure)
        expect(['config.invalid', 'config.override']).toContain((error as Failure).reason)
      }
    }
    fc.assert(
      fc.property(
        fc.oneof(
          tree.map((value) => stringify(value)),
          fc.string(),
        ),
        fc.array(fc.string(), { maxLength: 2 }),
        outcome,
      ),
      { numRuns: 300 },
    )
  })
})

describe('settings on the command line', () => {
  test('are laid over the file, the later over the earlier, and read as YAML', () => {
    const config = loadServerConfig({ name: 'server.yaml', text: `${minimalServer}listen: { port: 1 }` }, [
      'listen.port=2',
      'listen.port=3',
      'svid.x509=20s',
      'adminIds=[spiffe://example.org/a]',
      'serverId=a-b',
    ])
    expect(config).toMatchObject({
      listen: { port: 3, host: '0.0.0.0' },
      svid: { x509: seconds(20) },
      adminIds: ['spiffe://example.org/a'],
      serverId: 'a-b',
    })
    expect(loadServerConfig({ name: 'command line', text: '' }, ['trustDomain=example.org']).trustDomain).toBe('example.org')
    expect(loadServerConfig({ name: 'server.yaml', text: minimalServer }, ['adminSocket=/tmp/a=b.sock']).adminSocket).toBe('/tmp/a=b.sock')
  })

  test.each(['listen.port', '=3', '.=3', 'listen..port=3', 'trustDomain.x=3', 'listen.port=[', 'listen.port=*a'])(
    '`--set %s` is refused',
    (override) => {
      const { reason } = refusal(() => server(`${minimalServer}serverId: x\n`, [override]))
      expect(['config.override', 'config.invalid']).toContain(reason)
    },
  )

  test('that are wrong are named as such, not as a place in the file', () => {
    expect(mistakes(server, minimalServer, ['listen.port=x', 'listen.prot=1', 'trustDomain=3'])).toEqual([
      '--set trustDomain trustDomain: expected a text, found `3`',
      '--set listen.port listen.port: expected a number, found `x`',
      '--set listen.prot listen.prot: unknown key `prot`: did you mean `port`?',
    ])
  })

  test('without a file, what is missing is told without a line', () => {
    expect(refusal(() => loadServerConfig({ name: 'command line', text: '' })).message).toBe(
      'the configuration has 1 mistake\n  command line: `trustDomain` is missing',
    )
  })
})

describe('what is meant', () => {
  test('has every default, the paths within the data directory, and a longest lifetime that the usual one fits in', () => {
    const config = loadServerConfig({ name: 'server.yaml', text: `${minimalServer}dataDirectory: /data\nsvid: { x509: 48h }\n` })
    expect(config.svid).toMatchObject({ x509: hours(48), x509Longest: hours(48), jwt: minutes(5), jwtLongest: hours(1) })
    expect(config.ca.lifetime).toBe(hours(24))
    expect(config.store.settings).toEqual({ path: '/data/vidimus.sqlite' })
    expect(config.audit.settings).toEqual({ path: '/data/audit.log', maxMebibytes: 64, maxAge: hours(24) })
    expect(config.keyManager.settings).toEqual({ directory: '/data/keys' })
  })

  test.each([
    ['server', server, minimalServer],
    [
      'server with everything',
      server,
      `${minimalServer}svid: { x509: 90m, jwt: 61s }\nca: { lifetime: 36h, keyType: rsa-2048 }\nrefreshHint: 1500ms\nadminIds: [spiffe://example.org/a]\nstore: { kind: sqlite, path: /s }\nkeyManager: { kind: memory }\nupstreamAuthority: { kind: vault, address: https://v.test, auth: { method: token, token: { env: T } } }\n`,
    ],
    ['agent', agent, minimalAgent],
    [
      'agent with everything',
      agent,
      `${minimalAgent}joinToken: { file: /t }\nsyncInterval: 250ms\nworkloadAttestors: [{ kind: unix, discoverWorkloadPath: false, hash: true, hashSizeLimitBytes: 1000 }]\n`,
    ],
  ])('is printed as it can be written: %s', (_what, load, text) => {
    const shown = showConfig(load(text))
    const again = showConfig(load(stringify(shown)))
    expect(again).toEqual(shown)
    expect(JSON.parse(JSON.stringify(shown))).toEqual(shown)
  })
})

describe('the nearest key', () => {
  test('is one that differs little, or none', () => {
    expect(nearest('TRUSTDOMAIN', ['trustDomain', 'listen'])).toBe('trustDomain')
    expect(nearest('lisen', ['trustDomain', 'listen'])).toBe('listen')
    expect(nearest('colour', ['trustDomain', 'listen'])).toBeUndefined()
    expect(nearest('x', [])).toBeUndefined()
    expect(nearest('a'.repeat(1_000_000), ['trustDomain'])).toBeUndefined()
  })
})
