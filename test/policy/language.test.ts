import { describe, expect, test } from 'vitest'
import { failedWith, type Failure } from '../../src/kernel/failure.ts'
import { checkPolicies, parsePolicySet, ReadBefore } from '../../src/policy/language.ts'
import { readMoment } from '../../src/policy/reading.ts'
import { istios, ours, problemsOf } from './make.ts'

const from = (source: unknown) => ({ rules: [{ from: [{ source }] }] })
const to = (operation: unknown) => ({ rules: [{ to: [{ operation }] }] })
const when = (condition: unknown) => ({ rules: [{ when: [condition] }] })
const whole = (parts: object) =>
  JSON.stringify({ apiVersion: 'vidimus.dev/v1', kind: 'AuthorizationPolicy', metadata: { name: 'p', namespace: 'n' }, spec: {}, ...parts })
const gateway = { group: 'gateway.networking.k8s.io', kind: 'Gateway', name: 'g' }
const peers = (spec: object, namespace: string | undefined = 'shop') =>
  JSON.stringify({ apiVersion: 'security.istio.io/v1', kind: 'PeerAuthentication', metadata: { name: 'p', namespace }, spec })
const tokens = (jwtRules: readonly object[]) =>
  JSON.stringify({ apiVersion: 'security.istio.io/v1', kind: 'RequestAuthentication', metadata: { name: 'p', namespace: 'shop' }, spec: { jwtRules } }) // prettier-ignore
const many = <T>(count: number, one: T): T[] => Array.from({ length: count }, () => one)

describe('refused, with the place and what was expected', () => {
  test.each<[string, string, string]>([
    // The document.
    ['an unknown version', whole({ apiVersion: 'security.istio.io/v1beta1' }), 'apiVersion: expected `security.istio.io/v1`'],
    ['another kind', whole({ kind: 'Deployment' }), 'kind: unknown kind `Deployment`'],
    ["Istio's kind under our version", whole({ kind: 'PeerAuthentication' }), 'kind: unknown kind `PeerAuthentication`'],
    [
      'no spec',
      JSON.stringify({ apiVersion: 'vidimus.dev/v1', kind: 'AuthorizationPolicy', metadata: { name: 'p' } }),
      'expected the key `spec`',
    ],
    ['a spec that is none', whole({ spec: null }), 'spec: expected a map, found nothing'],
    ['a list', '[1]', 'expected a map, found a list'],
    ['no name', whole({ metadata: { namespace: 'n' } }), 'metadata: expected the key `name`'],
    [
      'a name that could be mistaken in reports',
      whole({ metadata: { name: 'a]-rule[1', namespace: 'n' } }),
      'metadata.name: expected a name',
    ],
    ['a namespace that is none', whole({ metadata: { name: 'p', namespace: 'A b' } }), 'metadata.namespace: expected a namespace'],
    ['an unknown key at the top', whole({ specs: {} }), 'specs: unknown key `specs`: did you mean `spec`?'],
    [
      'a dry run that says neither yes nor no',
      whole({ metadata: { name: 'p', namespace: 'n', annotations: { 'istio.io/dry-run': 'yes' } } }),
      'metadata.annotations.istio.io/dry-run: expected `"true"` or `"false"`, found `yes`',
    ],
    [
      'a dry run that nothing would report',
      whole({
        metadata: { name: 'p', namespace: 'n', annotations: { 'istio.io/dry-run': 'true' } },
        spec: { action: 'AUDIT', rules: [{}] },
      }),
      'nothing reports what `AUDIT` would have done',
    ],
    // YAML.
    ['broken YAML', 'a: [1', ':'],
    ['a key that is there twice', 'kind: a\nkind: b', 'kind: the key `kind` is there twice'],
    ['an alias', 'a: &x [1]\nb: *x', 'not accepted'],
    ['a tag', 'a: !!binary aGk=', 'not accepted'],
    ['a key that is no text', '1: a', 'expected a text as key'],
    ['a merge key', 'a: {b: 1}\n<<: {c: 1}', 'unknown key `<<`'],
    ['a document that is too deep', `a: ${'['.repeat(40)}${']'.repeat(40)}`, 'nested deeper than 16 levels'],
    ['a document that is far too deep', `a: ${'['.repeat(200_000)}`, 'nested deeper than 16 levels'],
    ['a document that is far too deep in a row', '- '.repeat(200_000), 'nested deeper than 16 levels'],
    [
      'a document that is far too deep by its indentation',
      Array.from({ length: 1300 }, (_, level) => `${' '.repeat(level)}a:`).join('\n'),
      'nested deeper than 16 levels',
    ],
    ['a document of far too many parts', 'a: ['.padEnd(400_000, 'a,'), 'more than 300000 values and marks'],
    ['a document of quotes', '"'.repeat(1_000_000), 'more than 300000 values and marks'],
    ['a document that is too large', `# ${'x'.repeat(1_048_576)}`, 'larger than 1048576 bytes'],
    // Which workloads.
    ['nobody to be for', whole({ metadata: { name: 'p' } }), 'expected `metadata.namespace` or `spec.identities`'],
    ['nobody to be for, in Istio\'s kind', JSON.stringify({ apiVersion: 'security.istio.io/v1', kind: 'AuthorizationPolicy', metadata: { name: 'p' }, spec: {} }), 'expected `metadata.namespace`'], // prettier-ignore
    ['no identity', ours({ identities: [] }), 'spec.identities: an empty list'],
    ['an identity that is none', ours({ identities: ['example.org/web'] }), 'spec.identities[0]: `example.org/web` is not a SPIFFE ID'],
    ['a star in an identity', ours({ identities: ['spiffe://example.org/*'] }), '`{*}` is one segment'],
    ['half a segment', ours({ identities: ['spiffe://example.org/a{*}'] }), 'stand for whole segments'],
    ['a rest that is not the rest', ours({ identities: ['spiffe://example.org/{**}/a'] }), '`{**}` must be the last segment'],
    ['a bad identity pattern', ours({ identities: ['spiffe://example.org/{*}/..'] }), 'is not a SPIFFE ID'],
    ['a star in a label', istios({ selector: { matchLabels: { app: 'a*' } } }), 'labels are compared exactly'],
    ['a label that is no text', istios({ selector: { matchLabels: { app: 1 } } }), 'expected a text, found the number `1`'],
    ['a misspelt selector', istios({ selector: { matchLabel: { app: 'a' } } }), 'did you mean `matchLabels`?'],
    ['R-11 no targetRefs', istios({ targetRefs: [] }), 'spec.targetRefs: an empty list'],
    ['too many targetRefs', istios({ targetRefs: many(17, gateway) }), 'at most 16 items, found 17'],
    ['targetRefs beside a selector', istios({ targetRefs: [gateway], selector: {} }), '`selector` cannot stand beside `targetRefs`'],
    ['targetRef beside targetRefs', istios({ targetRefs: [gateway], targetRef: gateway }), '`targetRef` cannot stand beside `targetRefs`'],
    [
      'a target of another kind',
      istios({ targetRefs: [{ ...gateway, kind: 'Pod' }] }),
      'cannot be attached to `gateway.networking.k8s.io/Pod`',
    ],
    ['a target elsewhere', istios({ targetRefs: [{ ...gateway, namespace: 'other' }] }), 'leave `namespace` out'],
    [
      'a class of gateways outside of the root namespace',
      istios({ targetRefs: [{ ...gateway, kind: 'GatewayClass' }] }),
      'root namespace `istio-system`',
    ],
    ['an unknown key in a target', istios({ targetRefs: [{ ...gateway, port: '1' }] }), 'unknown key `port`'],
    // Our fields in Istio's kind.
    ['identities', istios({ identities: ['spiffe://a/b'] }), '`identities` belongs to the `AuthorizationPolicy` of `vidimus.dev/v1`'],
    ['expires', istios({ expires: '2030-01-01' }), '`expires` belongs to'],
    ['requirePeer', istios({ requirePeer: true }), '`requirePeer` belongs to'],
    ['spiffeIds', istios(from({ spiffeIds: ['spiffe://a/b'] })), '`spiffeIds` belongs to'],
    // Action.
    ['CUSTOM without a provider', istios({ action: 'CUSTOM', rules: [{}] }), 'a CUSTOM policy needs `provider`'],
    [
      'CUSTOM whose provider has no name',
      istios({ action: 'CUSTOM', rules: [{}], provider: {} }),
      'spec.provider: expected the key `name`',
    ],
    ['CUSTOM without rules', istios({ action: 'CUSTOM', provider: { name: 'x' } }), 'a CUSTOM policy without rules matches nothing'],
    ['a provider of ALLOW', istios({ provider: { name: 'x' } }), '`provider` belongs to the action `CUSTOM`'],
    [
      'CUSTOM that says who',
      istios({ action: 'CUSTOM', provider: { name: 'x' }, ...from({ principals: ['*'] }) }),
      'cannot say who is calling',
    ],
    ['CUSTOM that reads a token', istios({ action: 'CUSTOM', provider: { name: 'x' }, ...when({ key: 'request.auth.claims[a]', values: ['b'] }) }), 'cannot say who is calling'], // prettier-ignore
    ['another action', istios({ action: 'allow' }), 'expected `ALLOW` or `DENY` or `AUDIT` or `CUSTOM`, found `allow`'],
    ['AUDIT at our own API', whole({ metadata: { name: 'p' }, spec: { target: 'serverApi', action: 'AUDIT' } }), 'expected `ALLOW` or `DENY`, found `AUDIT`'], // prettier-ignore
    ['a DENY without rules', istios({ action: 'DENY' }), 'a DENY policy without rules'],
    ['a DENY with an empty list of rules', istios({ action: 'DENY', rules: [] }), 'a DENY policy without rules'],
    ['requirePeer on DENY', ours({ action: 'DENY', requirePeer: false, rules: [{}] }), '`requirePeer` is for ALLOW policies'],
    ['requirePeer that is no boolean', ours({ requirePeer: 'no' }), 'expected `true` or `false`, found `no`'],
    ['a date that is none', ours({ expires: '2030-02-30' }), 'spec.expires: expected a date'],
    ['a duration for a date', ours({ expires: '7d' }), 'spec.expires: expected a date'],
    // Rules.
    ['a rule that is nothing', ours({ rules: [null] }), 'spec.rules[0]: expected a rule'],
    ['an unknown key in a rule', ours({ rules: [{ form: [] }] }), 'did you mean `from`?'],
    [
      "a condition in CEL in Istio's kind",
      istios({ rules: [{ condition: 'true' }] }),
      '`condition` belongs to the `AuthorizationPolicy` of `vidimus.dev/v1`',
    ],
    ['a condition that is no text', ours({ rules: [{ condition: true }] }), 'expected a text, found the boolean `true`'],
    [
      'a condition that is no CEL',
      ours({ rules: [{ condition: 'request.method == == "x"' }] }),
      'found = but expecting end of input, at character 16',
    ],
    ['too many rules', ours({ rules: many(513, {}) }), 'at most 512 items, found 513'],
    ['too many sources', ours({ rules: [{ from: many(513, { source: { ipBlocks: ['10.0.0.1'] } }) }] }), 'at most 512 items'],
    ['too many values', ours(to({ ports: many(4097, '1') })), 'at most 4096 items'],
    ['R-11 an empty from', ours({ rules: [{ from: [] }] }), 'an empty list allows nothing'],
    ['R-11 an empty to', ours({ rules: [{ to: [] }] }), 'an empty list allows nothing'],
    ['R-11 an empty when', ours({ rules: [{ when: [] }] }), 'spec.rules[0].when: an empty list'],
    ['a source that is missing', ours({ rules: [{ from: [{}] }] }), 'expected the key `source`'],
    ['an empty source', ours(from({})), 'an empty source is refused'],
    ['an empty operation', ours(to({})), 'an empty operation is refused'],
    ['an unknown key in a source', ours(from({ principal: ['a'] })), 'did you mean `principals`?'],
    ['an unknown key in an operation', ours(to({ methods: ['GET'], pathes: ['/a'] })), 'did you mean `paths`?'],
    ['a trust domain with a path', istios(from({ trustDomains: ['a/b'] })), 'expected a trust domain, without `/`'],
    ['a trust domain with a star inside', istios(from({ trustDomains: ['a*b'] })), '`*` stands at one end only'],
    ['a trust domain in upper case', istios(from({ trustDomains: ['A'] })), 'in lower case'],
    ['an end user without an issuer', istios(from({ requestPrincipals: ['alice'] })), 'expected `<issuer>/<subject>`'],
    ['R-6 half an issuer', istios(from({ requestPrincipals: ['*accounts.test/alice'] })), 'expected `<issuer>/<subject>`'],
    // Values.
    ['a value that is no list', ours(to({ methods: 'GET' })), 'expected a list, found `GET`'],
    ['a number that should be quoted', ours(to({ ports: [80] })), 'expected a text in quotes, found the number `80`'],
    ['an empty value', ours(to({ methods: [''] })), 'found an empty text'],
    ['a value that is too long', ours(to({ paths: [`/${'a'.repeat(2048)}`] })), 'at most 2048 characters'],
    ['a port that is none', ours(to({ ports: ['65536'] })), 'expected a port from 0 to 65535, found `65536`'],
    ['a port with a sign', ours(to({ ports: ['+80'] })), 'expected a port'],
    ['a port range', ours(to({ ports: ['80-90'] })), 'expected a port'],
    ['an address that is none', ours(from({ ipBlocks: ['10.0.0'] })), 'expected an IP address or a block'],
    ['an address with leading zeros', ours(from({ ipBlocks: ['010.0.0.1'] })), 'expected an IP address or a block'],
    ['a prefix that is too long', ours(from({ remoteIpBlocks: ['10.0.0.0/33'] })), 'expected a prefix length from 0 to 32'],
    ['bits beyond the prefix', ours(from({ ipBlocks: ['10.0.0.1/8'] })), 'bits set beyond its prefix length'],
    ['an account with a star', istios(from({ serviceAccounts: ['a/*'] })), 'without `*`'],
    ['an account with three parts', istios(from({ serviceAccounts: ['a/b/c'] })), 'expected `<namespace>/<name>`'],
    ['too many accounts', istios(from({ serviceAccounts: many(17, 'a/b') })), 'at most 16 items'],
    [
      'accounts beside principals',
      istios(from({ serviceAccounts: ['a/b'], principals: ['x/y'] })),
      '`serviceAccounts` cannot stand beside `principals`',
    ],
    ['R-6 half a segment in a principal', istios(from({ principals: ['example.org/ns/a*'] })), '`*` stands for whole segments'],
    ['R-6 a star in the middle of a principal', istios(from({ principals: ['example.org/*/sa/a'] })), '`*` stands for whole segments'],
    [
      'a principal with its scheme',
      istios(from({ principals: ['spiffe://example.org/a'] })),
      'without `spiffe://`: expected `example.org/a`',
    ],
    ['a principal that is no SPIFFE ID', istios(from({ principals: ['Example.org/a'] })), 'is not a SPIFFE ID'],
    ['a principal with dots for segments', istios(from({ principals: ['example.org/a/../b'] })), 'is not a SPIFFE ID'],
    ['a namespace with a slash', istios(from({ namespaces: ['a/b'] })), 'expected a namespace'],
    ['R-9 a method in lower case', ours(to({ methods: ['get'] })), 'expected a whole method in upper case'],
    ['R-9 half a method', ours(to({ methods: ['GE*'] })), 'expected a whole method in upper case'],
    ['a host with a star inside', ours(to({ hosts: ['a.*.b'] })), 'with `*` at one end at most'],
    ['a path without a slash', ours(to({ paths: ['admin'] })), 'beginning with `/`'],
    ['a path that never matches', ours(to({ paths: ['/a/../b'] })), '`/a/../b` never matches'],
    ['a path with a query', ours(to({ paths: ['/a?b'] })), 'never matches'],
    ['a path with empty segments', ours(to({ paths: ['//a*'] })), 'never matches'],
    ['a path with a parameter', ours(to({ paths: ['/a;b'] })), 'never matches'],
    ['a path with an unneeded escape', ours(to({ paths: ['/%61'] })), 'never matches'],
    ['a path with a star inside', ours(to({ paths: ['/a/*/b'] })), 'for one segment write `{*}`'],
    ['a template with half a segment', ours(to({ paths: ['/a/{*}b'] })), 'stand for whole segments'],
    ['a template with something after the rest', ours(to({ paths: ['/{**}/{*}'] })), '`{**}` must be the last operator'],
    ['a template that is too long', ours(to({ paths: [`/${'a'.repeat(260)}/{*}`] })), 'at most 256 characters'],
    ['an unknown brace', ours(to({ paths: ['/{id}'] })), 'stand for whole segments'],
    // Conditions.
    ['a condition without a key', ours(when({ values: ['a'] })), 'expected the key `key`'],
    ['a condition without values', ours(when({ key: 'source.ip' })), 'expected `values` or `notValues`'],
    ['an unknown key', ours(when({ key: 'source.ipp', values: ['a'] })), 'did you mean `source.ip`?'],
    ['a key of Istio\'s past', ours(when({ key: 'destination.labels[app]', values: ['a'] })), 'unknown condition key'], // prettier-ignore
    ['a claim without a name', ours(when({ key: 'request.auth.claims[]', values: ['a'] })), 'expected the name of a claim'],
    ['claims beyond reason', ours(when({ key: `request.auth.claims${'[a]'.repeat(17)}`, values: ['a'] })), 'at most 16 deep'],
    [
      'brackets that do not come in pairs',
      ours(when({ key: 'request.auth.claims[a[b]', values: ['a'] })),
      'brackets in the name of a claim',
    ],
    ['a filter without a key', ours(when({ key: 'experimental.envoy.filters.a', values: ['a'] })), 'unknown condition key'],
    ['what an attestor said, at a workload', ours(when({ key: 'attested.x509pop.ca', values: ['a'] })), 'unknown condition key'],
    ['a header without a name', ours(when({ key: 'request.headers[]', values: ['a'] })), 'unknown condition key'],
    ['a pseudo header', ours(when({ key: 'request.headers[:path]', values: ['a'] })), 'is no header'],
    ['the host header', ours(when({ key: 'request.headers[Host]', values: ['a'] })), 'is no header'],
    // Our own API.
    ['another target', ours({ target: 'server' }), 'expected `serverApi`'],
    ['onboarding that selects', ours({ target: 'onboarding' }), 'a policy of onboarding selects no workloads'],
    [
      'callers of onboarding',
      whole({ metadata: { name: 'p' }, spec: { target: 'onboarding', ...from({ callers: ['local'] }) } }),
      'unknown key `from`',
    ],
    ['a key of a workload there', whole({ metadata: { name: 'p' }, spec: { target: 'onboarding', ...when({ key: 'source.ip', values: ['10.0.0.1'] }) } }), 'unknown condition key'], // prettier-ignore
    // Who is believed to be who.
    ['mTLS of a mode that is none', peers({ mtls: { mode: 'strict' } }), 'expected `UNSET` or `DISABLE` or `PERMISSIVE` or `STRICT`'],
    ['mTLS of a port without a selector', peers({ portLevelMtls: { 80: { mode: 'STRICT' } } }), '`portLevelMtls` needs a `selector`'],
    [
      'mTLS of a port that is none',
      peers({ selector: { matchLabels: { a: 'b' } }, portLevelMtls: { 0: {} } }),
      'expected a port from 1 to 65535',
    ],
    ['an unknown key of mTLS', peers({ mtls: { modes: 'STRICT' } }), 'did you mean `mode`?'],
    [
      'mTLS that Istio would ignore',
      peers({ selector: { matchLabels: { a: 'b' } } }, 'istio-system'),
      'of the root namespace with a selector is ignored',
    ],
    ['mTLS without a namespace', peers({}, '').replace(/"namespace":""/, '"labels":{}'), 'expected `metadata.namespace`'],
    ['R-11 tokens of nobody', tokens([]), 'expected `jwtRules` with at least one rule'],
    ['a token without an issuer', tokens([{}]), 'expected the key `issuer`'],
    ['a token of an empty issuer', tokens([{ issuer: '' }]), 'found an empty text'],
    ['R-11 a token for nobody', tokens([{ issuer: 'x', audiences: [] }]), 'an empty list'],
    ['keys in two ways', tokens([{ issuer: 'x', jwks: '{}', jwksUri: 'https://x' }]), '`jwks` cannot stand beside `jwksUri`'],
    ['keys that are nowhere', tokens([{ issuer: 'x', jwksUri: 'file:///etc' }]), 'expected an address of keys'],
    ['a token from a header without a name', tokens([{ issuer: 'x', fromHeaders: [{ prefix: 'a' }] }]), 'expected the key `name`'],
    ['an unknown key of a token', tokens([{ issuer: 'x', audience: ['a'] }]), 'did you mean `audiences`?'],
    ['a timeout that is none', tokens([{ issuer: 'x', timeout: '5' }]), 'is not a duration'],
    ['forwarding that is no boolean', tokens([{ issuer: 'x', forwardOriginalToken: 'yes' }]), 'expected `true` or `false`'],
    ['a server API policy that selects', ours({ target: 'serverApi' }), 'selects no workloads'],
    [
      'principals there',
      whole({ metadata: { name: 'p' }, spec: { target: 'serverApi', ...from({ principals: ['a/b'] }) } }),
      'unknown key `principals`: expected `callers`',
    ],
    [
      'methods there',
      whole({ metadata: { name: 'p' }, spec: { target: 'serverApi', ...to({ methods: ['GET'] }) } }),
      'unknown key `methods`',
    ],
    [
      'an unknown caller',
      whole({ metadata: { name: 'p' }, spec: { target: 'serverApi', ...from({ callers: ['agents'] }) } }),
      'did you mean `agent`?',
    ],
    ['callers at a workload', ours(from({ callers: ['agent'] })), 'unknown key `callers`'],
    ['a workload\'s key there', whole({ metadata: { name: 'p' }, spec: { target: 'serverApi', ...when({ key: 'source.ip', values: ['10.0.0.1'] }) } }), 'unknown condition key'], // prettier-ignore
    ['its key at a workload', ours(when({ key: 'entry.admin', values: ['true'] })), 'unknown condition key'],
    [
      'a duration that is none',
      whole({ metadata: { name: 'p' }, spec: { target: 'serverApi', ...when({ key: 'entry.x509Ttl', values: ['<=60'] }) } }),
      'is not a duration',
    ],
    [
      'a boolean that is none',
      whole({ metadata: { name: 'p' }, spec: { target: 'serverApi', ...when({ key: 'entry.admin', values: ['yes'] }) } }),
      'expected `"true"` or `"false"`',
    ],
    ['a namespace there', whole({ spec: { target: 'serverApi' } }), 'has no namespace'],
  ])('%s', (_, text, expected) => {
    const problems = problemsOf(text)
    expect(problems.length).toBeGreaterThan(0)
    expect(problems.join('\n')).toContain(expected)
  })

  test.each([
    'principals',
    'notPrincipals',
    'namespaces',
    'notNamespaces',
    'serviceAccounts',
    'notServiceAccounts',
    'ipBlocks',
    'notIpBlocks',
    'remoteIpBlocks',
    'notRemoteIpBlocks',
    'spiffeIds',
    'notSpiffeIds',
  ])('R-11 an empty list of %s', (field) => expect(problemsOf(ours(from({ [field]: [] }))).join()).toContain(`${field}: an empty list`))
  test.each(['hosts', 'notHosts', 'ports', 'notPorts', 'methods', 'notMethods', 'paths', 'notPaths'])('R-11 an empty list of %s', (field) =>
    expect(problemsOf(ours(to({ [field]: [] }))).join()).toContain(`${field}: an empty list`),
  )
  test.each(['values', 'notValues'])('R-11 an empty list of %s', (field) =>
    expect(problemsOf(ours(when({ key: 'source.ip', [field]: [] }))).join()).toContain(`${field}: an empty list`),
  )
})

describe('every mistake is told, each in its place', () => {
  const text = [
    'apiVersion: security.istio.io/v1',
    'kind: AuthorizationPolicy',
    'metadata: { name: a, namespace: b }',
    'spec:',
    '  rulez: []',
    '  rules:',
    '    - to:',
    '        - operation:',
    "            paths: [/ok, '/a/../b']",
    '            ports: [80]',
    '---',
    'kind: [',
    '',
  ].join('\n')

  test('with document, line, column and path', () => {
    const { set, problems } = checkPolicies([{ name: 'one.yaml', text }, { name: 'two.yaml', text: istios({ rules: [{ when: 1 }] }) }]) // prettier-ignore
    expect(set).toBeUndefined()
    expect(problems.map(({ document, line, column, path }) => [document, line, column, path])).toEqual([
      ['one.yaml', 5, 3, 'spec.rulez'],
      ['one.yaml', 9, 26, 'spec.rules[0].to[0].operation.paths[1]'],
      ['one.yaml', 10, 21, 'spec.rules[0].to[0].operation.ports[0]'],
      ['one.yaml', expect.any(Number), expect.any(Number), ''],
      ['two.yaml', 1, expect.any(Number), 'spec.rules[0].when'],
    ])
  })

  test('as one refusal, with all of them inside', () => {
    try {
      parsePolicySet([{ name: 'one.yaml', text }])
      expect.unreachable()
    } catch (thrown) {
      expect(failedWith(thrown, 'policy.invalid')).toBe(true)
      expect((thrown as Failure).message).toContain('one.yaml:5:3: spec.rulez: unknown key `rulez`: did you mean `rules`?')
      expect((thrown as Failure).internal['problems']).toHaveLength(4)
    }
  })

  test('two policies of one name, whichever kind', () => {
    const { problems } = checkPolicies([{ name: 'a', text: istios({}) }, { name: 'b', text: JSON.stringify({ apiVersion: 'vidimus.dev/v1', kind: 'AuthorizationPolicy', metadata: { name: 'p', namespace: 'shop' }, spec: {} }) }]) // prettier-ignore
    expect(problems.map(({ document, message }) => [document, message])).toEqual([['b', '`p` is there already: a:1']])
  })

  test('strict mode with another path normalization', () => {
    expect(problemsOf(istios({}), { pathNormalization: 'base' }).join()).toContain('needs the path normalization')
  })

  test('control characters in a text do not reach a terminal', () => {
    expect(problemsOf(ours({ action: 'x\u001b[31m' })).join()).not.toContain('\u001b')
  })

  test('a document of very many mistakes tells the first of them', () => {
    expect(problemsOf(Array.from({ length: 2000 }, (_, key) => `k${key}: 1`).join('\n')).length).toBe(500)
  })
})

describe('read as it is meant', () => {
  test('everything at once', () => {
    const set = parsePolicySet([{ name: 'p.yaml', text: `
# what kubectl get -o yaml prints is accepted
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: web, namespace: shop, labels: { a: b }, uid: x, creationTimestamp: "2026-01-01T00:00:00Z" }
spec:
  selector: { matchLabels: { app: orders } }
  rules:
    - from: [{ source: { principals: ["*", "example.org/ns/a/*"], notNamespaces: [bad] } }]
      to: [{ operation: { hosts: ["*.Example.org"], ports: ["8080"], methods: [GET], paths: [/a, /b*, "*c", "*", "/d/{*}/{**}"] } }]
      when: [{ key: "request.headers[X-A]", values: [v], notValues: [w] }]
status: {}
---
---
apiVersion: vidimus.dev/v1
kind: AuthorizationPolicy
metadata: { name: all }
spec: { identities: ["spiffe://example.org/{*}"], action: DENY, expires: 2030-01-01, rules: [{}] }
` }]) // prettier-ignore
    const [web, all] = set.policies
    expect(set).toMatchObject({ mode: 'strict', rootNamespace: 'istio-system', pathNormalization: 'decode-and-merge-slashes' })
    expect(web).toMatchObject({
      name: 'web',
      namespace: 'shop',
      action: 'ALLOW',
      requirePeer: false,
      selection: { namespace: 'shop', matchLabels: [{ key: 'app', value: 'orders' }] },
      place: { line: 3, column: 1 },
    })
    expect(web?.rules[0]).toMatchObject({
      from: [
        [
          { on: 'peer', not: false, anyOf: [{ kind: 'any' }, { kind: 'below', prefix: 'spiffe://example.org/ns/a/' }] },
          { on: 'peer', not: true, anyOf: [{ kind: 'namespace', glob: 'bad' }] },
        ],
      ],
      to: [
        [
          { on: 'host', anyOf: [{ kind: 'suffix', value: '.example.org' }] },
          { on: 'method', anyOf: [{ kind: 'exact', value: 'GET' }] },
          { on: 'path', anyOf: [{ kind: 'exact', value: '/a' }, { kind: 'prefix', value: '/b' }, { kind: 'suffix', value: 'c' }, { kind: 'present' }, { kind: 'template', text: '/d/{*}/{**}' }] }, // prettier-ignore
          { on: 'destination.port', anyOf: [8080] },
        ],
      ],
      when: [
        { on: 'header', name: 'x-a', not: false, anyOf: [{ kind: 'exact', value: 'v' }] },
        { on: 'header', name: 'x-a', not: true, anyOf: [{ kind: 'exact', value: 'w' }] },
      ],
    })
    expect(all).toMatchObject({
      namespace: '',
      action: 'DENY',
      requirePeer: false,
      expires: 1_893_456_000_000,
      rules: [{ from: 'any', to: 'any', when: [] }],
    })
  })

  test('what strict mode refuses for its dead or open ends, istio mode takes', () => {
    const text = istios({
      rules: [
        { from: [{ source: { principals: ['a*', 'x/*/y'] } }], to: [{ operation: { paths: ['a', '/a/*/b', '//x'], methods: ['get'] } }] },
      ],
    })
    expect(problemsOf(text).length).toBe(6)
    expect(problemsOf(text, { mode: 'istio' })).toEqual([])
  })

  test('tests stand beside policies and are passed over', () => {
    const tests = JSON.stringify({ apiVersion: 'vidimus.dev/v1', kind: 'PolicyTest', cases: [] })
    const set = parsePolicySet([{ name: 'p', text: istios({}) }, { name: 't', text: tests }]) // prettier-ignore
    expect(set.documents.map(({ name }) => name)).toEqual(['p'])
  })

  test('the fingerprint changes with text, mode and options, and with nothing else', () => {
    const print = (text: string, options = {}) => parsePolicySet([{ name: 'p', text }], options).fingerprint
    const one = print(istios({}))
    expect(print(istios({}))).toBe(one)
    expect(
      new Set([one, print(`${istios({})} `), print(istios({}), { mode: 'istio' }), print(istios({}), { rootNamespace: 'root' })]).size,
    ).toBe(4)
    expect(parsePolicySet([]).policies).toEqual([])
  })

  test('moments', () => {
    expect(readMoment('2030-01-01')).toBe(1_893_456_000_000)
    expect(readMoment('2030-01-01T02:00:00+02:00')).toBe(1_893_456_000_000)
    for (const text of ['2030-1-1', '2030-13-01', '2030-02-29', '2030-01-01 00:00:00', 'tomorrow', ''])
      expect(readMoment(text)).toBeUndefined()
  })
})

describe('a set of which most was read before', () => {
  const documents = [
    { name: 'a.yaml', text: ours(from({ spiffeIds: ['spiffe://example.org/web'] }), 'a') },
    { name: 'b.yaml', text: ours(to({ methods: ['GET'] }), 'b') },
  ]

  test('is the set that is read without it, whatever else was read in between', () => {
    const before = new ReadBefore()
    const changed = [documents[0]!, { name: 'b.yaml', text: ours(to({ methods: ['PUT'] }), 'b') }]
    for (const set of [documents, changed, documents, documents.toReversed(), documents.slice(1)])
      for (const options of [{}, { mode: 'istio' }, { rootNamespace: 'other' }] as const)
        expect(parsePolicySet(set, options, before)).toEqual(parsePolicySet(set, options))
  })

  test('is refused for the mistakes it would be refused for without it, again and again', () => {
    const before = new ReadBefore()
    parsePolicySet(documents, {}, before)
    const wrong = [documents[0]!, { name: 'b.yaml', text: ours(to({ method: ['GET'] }), 'b') }]
    const twins = [...documents, { name: 'c.yaml', text: documents[0]!.text }]
    for (const set of [wrong, wrong, twins, twins]) expect(checkPolicies(set, {}, before).problems).toEqual(checkPolicies(set).problems)
    expect(checkPolicies(twins, {}, before).problems).toHaveLength(1)
  })

  test('names the file that it stands in now', () => {
    const before = new ReadBefore()
    parsePolicySet(documents, {}, before)
    const [policy] = parsePolicySet([{ ...documents[0]!, name: 'moved.yaml' }], {}, before).policies
    expect(policy!.place.document).toBe('moved.yaml')
  })

  test('takes part of what is too much to be remembered anew, as it was', () => {
    const before = new ReadBefore()
    const large = Array.from({ length: 6 }, (_, index) => ({
      name: `${index}.yaml`,
      text: `${ours({}, `p${index}`)}\n#${'x'.repeat(900_000)}\n`,
    }))
    for (const set of [large, large.toReversed()]) expect(parsePolicySet(set, {}, before)).toEqual(parsePolicySet(set))
  })
})
