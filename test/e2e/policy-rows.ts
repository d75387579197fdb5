/** The tables of authorization.md section 1, row by row: policies, and what a proxy must answer. */
import type { PolicyMode } from '../../src/policy/policy-set.ts'
import { metadataFilter } from '../support/rule-envoy.ts'

export const callers = ['web', 'other', 'deep', 'foreign', 'subject', 'dns', 'nobody'] as const
export type Caller = (typeof callers)[number]

/** One request; what is left out is `GET /` at `shop.test` by `web`. */
export interface Sent {
  readonly caller?: Caller
  readonly method?: string
  readonly path?: string
  readonly host?: string
  readonly headers?: readonly (readonly [string, string])[]
  readonly sni?: string
  readonly sourceIp?: string
  readonly remoteIp?: string
  /** Claims of a token that is valid. */
  readonly token?: Readonly<Record<string, unknown>>
  /** Where the token stands; in `authorization`, unless said otherwise. `unread` is a header that nobody looks into. */
  readonly tokenIn?: 'x-token' | 'access_token' | 'tok' | 'cookie' | 'unread'
  /** A token that no key vouches for, or not any more. */
  readonly badToken?: 'expired' | 'forged' | 'garbage'
  readonly meta?: string
  /** What the provider of CUSTOM policies says. */
  readonly provider?: 'allowed' | 'denied'
  /** A connection, and no HTTP. */
  readonly tcp?: true
}

export interface Row {
  /** Begins with the section that it is from. */
  readonly name: string
  readonly modes: readonly PolicyMode[]
  readonly policies: readonly string[]
  readonly answers: readonly (readonly [Sent, boolean | Readonly<Record<PolicyMode, boolean>>])[]
  readonly aliases?: readonly string[]
  readonly providers?: Readonly<Record<string, string>>
  /** Also enforced on connections without HTTP. */
  readonly tcp?: true
  /** With a listener of its own at this port, and no other policies that read tokens: in place of `policies`. `jwks` are the keys of all issuers. */
  readonly alone?: (port: number, jwks: string) => readonly string[]
}

const both: readonly PolicyMode[] = ['strict', 'istio']
const istioOnly: readonly PolicyMode[] = ['istio']

function document(
  kind: string,
  spec: object,
  {
    name = 'p',
    namespace = 'shop',
    ours = false,
    annotations,
  }: { name?: string; namespace?: string; ours?: boolean; annotations?: object } = {},
): string {
  return JSON.stringify({
    apiVersion: ours ? 'vidimus.dev/v1' : 'security.istio.io/v1',
    kind,
    metadata: { name, namespace, ...(annotations && { annotations }) },
    spec,
  })
}
const policy = (spec: object, options: Parameters<typeof document>[2] = {}) => document('AuthorizationPolicy', spec, options)

/** The issuer and key that all rows with tokens use; the key is put in by the test. */
const issuers = ['https://issuer.test', 'issuer'] as const
export const tokensFrom = (jwks: string) =>
  document(
    'RequestAuthentication',
    { jwtRules: issuers.map((issuer) => ({ issuer, jwks, ...(issuer === 'issuer' && { spaceDelimitedClaims: ['roles'] }) })) },
    { name: 'tokens' },
  )

const from = (source: object) => ({ rules: [{ from: [{ source }] }] })
const to = (operation: object) => ({ rules: [{ to: [{ operation }] }] })
const when = (key: string, values: readonly string[], not = false) => ({
  rules: [{ when: [{ key, [not ? 'notValues' : 'values']: values }] }],
})
const everyone = policy({ rules: [{}] }, { name: 'everyone' })
const not = (field: string) => `not${field[0]!.toUpperCase()}${field.slice(1)}`

const web: Sent = {}
const nobody: Sent = { caller: 'nobody' }
const other: Sent = { caller: 'other' }
const deep: Sent = { caller: 'deep' }
const foreign: Sent = { caller: 'foreign' }
const token = (more: object = {}, iss: string = issuers[0]): Sent => ({ token: { iss, sub: 'alice', ...more } })

type Answer = boolean | Readonly<Record<PolicyMode, boolean>>
/** A field of a source or an operation: its row, and the row of its negation. Who has no peer or token is told apart. */
function field(
  name: string,
  value: readonly string[],
  on: 'source' | 'operation',
  found: readonly Sent[],
  others: readonly Sent[],
  absent: readonly Sent[] = [],
  modes = both,
  tcp?: true,
): Row[] {
  const make = on === 'source' ? from : to
  const all = (list: readonly Sent[], answer: Answer) => list.map((sent) => [sent, answer] as const)
  const label = `1.2 ${name} ${JSON.stringify(value)}`
  return [
    {
      name: label,
      modes,
      policies: [policy(make({ [name]: value }))],
      answers: [...all(found, true), ...all(others, false), ...all(absent, false)],
      ...(tcp && { tcp }),
    },
    {
      name: `1.2 ${not(name)} ${JSON.stringify(value)}`,
      modes,
      policies: [policy(make({ [not(name)]: value }))],
      answers: [...all(found, false), ...all(others, true), ...all(absent, { strict: false, istio: true })],
      ...(tcp && { tcp }),
    },
    {
      name: `${label} in DENY`,
      modes,
      policies: [everyone, policy({ action: 'DENY', ...make({ [name]: value }) })],
      answers: [...all(found, false), ...all(others, true), ...all(absent, true)],
    },
  ]
}

/** A condition, and its negation. */
function condition(
  key: string,
  value: readonly string[],
  found: readonly Sent[],
  others: readonly Sent[],
  absent: readonly Sent[] = [],
  section = '1.2',
  modes = both,
): Row[] {
  const all = (list: readonly Sent[], answer: Answer) => list.map((sent) => [sent, answer] as const)
  return [
    {
      name: `${section} when ${key} ${JSON.stringify(value)}`,
      modes,
      policies: [policy(when(key, value))],
      answers: [...all(found, true), ...all(others, false), ...all(absent, false)],
    },
    {
      name: `${section} when ${key} notValues ${JSON.stringify(value)}`,
      modes,
      policies: [policy(when(key, value, true))],
      answers: [...all(found, false), ...all(others, true), ...all(absent, { strict: false, istio: true })],
    },
  ]
}

const at = (path: string, more: Sent = {}): Sent => ({ ...more, path })
const sending = (name: string, ...values: readonly string[]): Sent => ({ headers: values.map((value) => [name, value] as const) })
const withHeader = (...values: readonly string[]): Sent => ({ headers: values.map((value) => ['x-a', value] as const) })

/** authorization.md 1.3: every value form in every column. */
const forms = [
  { value: 'abc', yes: ['abc'], no: ['abcd', 'xabc', 'ABC'] },
  { value: 'abc*', yes: ['abc', 'abcd'], no: ['xabc', 'ab'] },
  { value: '*abc', yes: ['abc', 'xabc'], no: ['abcd', 'bc'] },
  { value: '*', yes: ['abc', 'x'], no: [] as string[] },
] as const

const valueForms: Row[] = forms.flatMap(({ value, yes, no }) => [
  ...condition(
    'request.headers[x-a]',
    [value],
    yes.map((one) => withHeader(one)),
    [...no.map((one) => withHeader(one))],
    [],
    '1.3 headers',
  ).map((row) => ({
    ...row,
    answers: [...row.answers, [web, row.name.includes('notValues')] as const],
  })),
  ...condition(
    'connection.sni',
    [value],
    yes.map((sni) => ({ sni })),
    no.filter((one) => one !== 'ABC').map((sni) => ({ sni })),
    [{}, nobody],
    '1.3 sni',
  ),
  ...condition('request.auth.claims[c]', [value], yes.flatMap((c) => [token({ c }), token({ c: ['z', c] })]), [...no.map((c) => token({ c })), token({ c: 7 }), token({ c: [] }), ...(value === '*' ? [token({ c: '' })] : [])], [web], '1.3 claims'), // prettier-ignore
  ...condition(
    'request.auth.audiences',
    [value],
    yes.flatMap((aud) => [token({ aud }), token({ aud: ['z', aud] })]),
    no.map((aud) => token({ aud })),
    [web],
    '1.3 audiences',
  ),
  ...condition(
    'request.auth.presenter',
    [value],
    yes.map((azp) => token({ azp })),
    no.map((azp) => token({ azp })),
    [web],
    '1.3 presenter',
  ),
  ...condition(
    `experimental.${metadataFilter}[meta]`,
    [value],
    yes.map((meta) => ({ meta })),
    no.map((meta) => ({ meta })),
    [web],
    '1.3 filters',
  ),
])

const hostForms: Row[] = [
  { value: 'shop.test', yes: ['shop.test', 'SHOP.Test'], no: ['a.shop.test', 'shop.tes'] },
  { value: 'shop*', yes: ['shop.test', 'SHOPs'], no: ['a.shop.test'] },
  { value: '*.test', yes: ['shop.test', 'a.shop.TEST'], no: ['test.shop'] },
  { value: '*', yes: ['shop.test', 'x'], no: [] },
].map(({ value, yes, no }) => ({
  name: `1.3 hosts \`${value}\``,
  modes: both,
  policies: [policy(to({ hosts: [value] }))],
  answers: [...yes.map((host) => [{ host }, true] as const), ...no.map((host) => [{ host }, false] as const)],
}))

const pathForms: Row[] = [
  { value: '/a', yes: ['/a', '/a?q=1', '/x/../a'], no: ['/a/', '/ab', '/A', '/'] },
  { value: '/a*', yes: ['/a', '/ab', '/a/b'], no: ['/', '/b/a'] },
  { value: '*/a', yes: ['/a', '/b/a'], no: ['/ab', '/a/'] },
  { value: '*', yes: ['/', '/a'], no: [] },
].map(({ value, yes, no }) => ({
  name: `1.3 paths \`${value}\``,
  modes: both,
  policies: [policy(to({ paths: [value] }))],
  answers: [...yes.map((path) => [{ path }, true] as const), ...no.map((path) => [{ path }, false] as const)],
}))

const methodForms: Row[] = [
  { value: 'GET', yes: ['GET'], no: ['POST', 'PUT'], modes: both },
  { value: 'P*', yes: ['POST', 'PUT', 'PATCH'], no: ['GET'], modes: istioOnly },
  { value: '*T', yes: ['GET', 'POST', 'PUT'], no: ['DELETE'], modes: istioOnly },
  { value: '*', yes: ['GET', 'DELETE'], no: [], modes: both },
].map(({ value, yes, no, modes }) => ({
  name: `1.3 methods \`${value}\``,
  modes,
  policies: [policy(to({ methods: [value] }))],
  answers: [...yes.map((method) => [{ method }, true] as const), ...no.map((method) => [{ method }, false] as const)],
}))

/** authorization.md 1.4: what is written, then who is that and who is not. */
const requestPrincipals: Row[] = (
  [
    [
      '*',
      [
        ['https://issuer.test', 'alice'],
        ['issuer', 'x'],
      ],
      [['issuer', '']],
      both,
    ],
    [
      '*/alice',
      [
        ['https://issuer.test', 'alice'],
        ['issuer', 'alice'],
      ],
      [['issuer', 'bob']],
      both,
    ],
    [
      '*issuer.test/alice',
      [['https://issuer.test', 'alice']],
      [
        ['issuer', 'alice'],
        ['https://issuer.test', 'bob'],
      ],
      istioOnly,
    ],
    [
      '*ice',
      [
        ['https://issuer.test', 'alice'],
        ['issuer', 'ice'],
      ],
      [['issuer', 'bob']],
      istioOnly,
    ],
    [
      'https://issuer.test/*',
      [
        ['https://issuer.test', 'alice'],
        ['https://issuer.test', 'b'],
      ],
      [
        ['issuer', 'alice'],
        ['https://issuer.test', ''],
      ],
      both,
    ],
    [
      'https://issuer.test/ali*',
      [
        ['https://issuer.test', 'alice'],
        ['https://issuer.test', 'ali'],
      ],
      [
        ['https://issuer.test', 'bob'],
        ['issuer', 'alice'],
      ],
      both,
    ],
    [
      'iss*',
      [
        ['issuer', 'alice'],
        ['issuer', 'x'],
      ],
      [
        ['https://issuer.test', 'alice'],
        ['issuer', ''],
      ],
      istioOnly,
    ],
    [
      'issuer',
      [['issuer', '']],
      [
        ['issuer', 'alice'],
        ['https://issuer.test', ''],
      ],
      istioOnly,
    ],
    [
      'https://issuer.test/alice',
      [['https://issuer.test', 'alice']],
      [
        ['https://issuer.test', 'alicia'],
        ['issuer', 'alice'],
      ],
      both,
    ],
  ] as const
).flatMap(([value, yes, no, modes]) => {
  const sent = ([iss, sub]: readonly [string, string]): Sent => ({ token: { iss, sub } })
  return [
    ...condition('request.auth.principal', [value], yes.map(sent), no.map(sent), [web], '1.4', modes),
    ...field('requestPrincipals', [value], 'source', yes.map(sent), no.map(sent), [web], modes)
      .slice(0, 2)
      .map((row) => ({ ...row, name: row.name.replace('1.2', '1.4') })),
  ]
})

const inCluster: Sent = { host: 'shop.test:8080' }

const edges: readonly Row[] = [
  {
    name: '1.8 `spec: {}` allows nothing',
    modes: both,
    policies: [policy({})],
    answers: [
      [web, false],
      [nobody, false],
    ],
    tcp: true,
  },
  {
    name: '1.8 `rules: [{}]` matches everything',
    modes: both,
    policies: [policy({ rules: [{}] })],
    answers: [
      [web, true],
      [nobody, true],
    ],
    tcp: true,
  },
  {
    name: '1.8 `from: []` and `to: []` match anything',
    modes: istioOnly,
    policies: [policy({ rules: [{ from: [], to: [] }] })],
    answers: [
      [web, true],
      [nobody, true],
    ],
  },
  {
    name: '1.8 a negation admits the unauthenticated',
    modes: both,
    policies: [policy(from({ notPrincipals: ['example.org/ns/shop/sa/other'] }))],
    answers: [
      [web, true],
      [other, false],
      [nobody, { strict: false, istio: true }],
    ],
  },
  {
    name: '1.8 a negation of a header is true without the header',
    modes: both,
    policies: [policy(when('request.headers[x-a]', ['abc'], true))],
    answers: [
      [web, true],
      [withHeader('abc'), false],
      [withHeader('x'), true],
    ],
  },
  {
    name: '1.8 `principals: ["*"]` is any mTLS peer',
    modes: both,
    policies: [policy(from({ principals: ['*'] }))],
    answers: [
      [web, true],
      [foreign, true],
      [nobody, false],
    ],
    tcp: true,
  },
  {
    name: '1.8 a subject or a DNS name is taken for a namespace',
    modes: both,
    policies: [policy(from({ namespaces: ['vault'] }))],
    answers: [
      [web, false],
      [{ caller: 'subject' }, { strict: false, istio: true }],
      [{ caller: 'dns' }, { strict: false, istio: true }],
    ],
  },
  {
    name: '1.8 a namespace deep in a SPIFFE path is taken for one',
    modes: both,
    policies: [policy(from({ namespaces: ['shop'] }))],
    answers: [
      [web, true],
      [deep, { strict: false, istio: true }],
    ],
  },
  {
    name: '1.8 a host is compared with the port that was sent',
    modes: both,
    policies: [policy(to({ hosts: ['shop.test'] }))],
    answers: [
      [web, true],
      [inCluster, { strict: true, istio: false }],
    ],
  },
  {
    name: '1.8 a host with any port',
    modes: both,
    policies: [policy(to({ hosts: ['shop.test:*'] }))],
    answers: [
      [web, false],
      [inCluster, true],
    ],
  },
  {
    name: '1.8 hosts have no case',
    modes: both,
    policies: [policy(to({ hosts: ['Shop.TEST'] }))],
    answers: [
      [web, true],
      [{ host: 'SHOP.test' }, true],
    ],
  },
  {
    name: '1.8 a header sent twice is denied by either value',
    modes: both,
    policies: [everyone, policy({ action: 'DENY', ...when('request.headers[x-a]', ['bad']) })],
    answers: [
      [withHeader('bad'), false],
      [withHeader('bad', 'good'), false],
      [withHeader('good', 'bad'), false],
      [withHeader('good'), true],
    ],
  },
  {
    name: '1.8 a header sent twice is allowed by one value, or by each',
    modes: both,
    policies: [policy(when('request.headers[x-a]', ['good']))],
    answers: [
      [withHeader('good'), true],
      [withHeader('good', 'bad'), { strict: false, istio: true }],
      [withHeader('good', 'good'), true],
    ],
  },
  {
    name: '1.8 a header of which Envoy keeps one hides values that stand beside others',
    modes: both,
    policies: [everyone, policy({ action: 'DENY', ...when('request.headers[accept]', ['bad']) })],
    answers: [
      [sending('accept', 'bad'), false],
      [sending('accept', 'bad', 'good'), { strict: false, istio: true }],
      [sending('accept', 'good', 'bad'), { strict: false, istio: true }],
      [sending('accept', '', 'bad'), false],
      [sending('accept', 'bad', ''), false],
      [sending('accept', 'good'), true],
    ],
  },
  {
    name: '1.8 a header of which Envoy keeps one is allowed as a whole',
    modes: both,
    policies: [policy(when('request.headers[accept]', ['good']))],
    answers: [
      [sending('accept', 'good'), true],
      [sending('accept', 'good', 'good'), false],
      [sending('accept', 'good', 'bad'), false],
      [sending('accept', ''), false],
    ],
  },
  {
    name: '1.8 a header of which Envoy keeps one has no empty values beside others',
    modes: istioOnly,
    policies: [policy(when('request.headers[accept]', ['good']))],
    answers: [
      [sending('accept', 'good', ''), true],
      [sending('accept', '', 'good'), true],
    ],
  },
  {
    name: '1.8 two `authorization` headers',
    modes: both,
    policies: [everyone, policy({ action: 'DENY', ...when('request.headers[authorization]', ['bad']) })],
    answers: [
      [sending('authorization', 'bad'), false],
      [sending('authorization', 'bad', 'good'), { strict: false, istio: true }],
      [sending('authorization', 'good', 'good'), { strict: false, istio: true }],
      [sending('authorization', '', 'bad'), false],
      [sending('authorization', '', 'good'), true],
    ],
  },
  {
    name: '1.8 the path is normalised before it is compared',
    modes: both,
    policies: [everyone, policy({ action: 'DENY', ...to({ paths: ['/admin*'] }) })],
    answers: [
      [at('/admin'), false],
      [at('/x/../admin'), false],
      [at('/x\\..\\admin'), false],
      [at('//admin'), { strict: false, istio: true }],
      [at('/x%2F..%2Fadmin'), { strict: false, istio: true }],
      [at('/Admin'), true],
    ],
  },
  {
    name: '1.8 parameters, case and double escapes are not normalised',
    modes: both,
    policies: [everyone, policy({ action: 'DENY', ...to({ paths: ['/admin'] }) })],
    answers: [
      [at('/admin;x'), { strict: false, istio: true }],
      [at('/%2561dmin'), { strict: false, istio: true }],
      [at('/ADMIN'), true],
      [at('/admin'), false],
    ],
  },
  {
    name: '1.8 trust-domain aliases: a principal of ours is one of each alias',
    modes: both,
    aliases: ['other.test'],
    policies: [policy(from({ principals: ['example.org/ns/shop/sa/web'] }))],
    answers: [
      [web, true],
      [foreign, true],
      [other, false],
    ],
  },
  {
    name: '1.8 trust-domain aliases: the principal of an alias is one of ours',
    modes: both,
    aliases: ['other.test'],
    policies: [policy(from({ principals: ['other.test/ns/shop/sa/web'] }))],
    answers: [
      [web, true],
      [foreign, true],
      [other, false],
    ],
  },
  {
    name: '1.8 trust-domain aliases: also in a negation',
    modes: both,
    aliases: ['other.test'],
    policies: [policy(from({ notPrincipals: ['example.org/ns/shop/sa/web'] }))],
    answers: [
      [web, false],
      [foreign, false],
      [other, true],
    ],
  },
  {
    name: '1.8 trust-domain aliases: `cluster.local` is ours',
    modes: istioOnly,
    policies: [policy(from({ principals: ['cluster.local/ns/shop/sa/web'] }))],
    answers: [
      [web, true],
      [foreign, false],
    ],
  },
  {
    name: '1.8 trust-domain aliases: a domain that is none of ours stays',
    modes: both,
    aliases: ['old.test'],
    policies: [policy(from({ principals: ['other.test/ns/shop/sa/web'] }))],
    answers: [
      [web, false],
      [foreign, true],
    ],
  },
  {
    name: '1.8 trust-domain aliases: trust domains expand by exact name',
    modes: both,
    aliases: ['other.test'],
    policies: [policy(from({ trustDomains: ['example.org'] }))],
    answers: [
      [web, true],
      [foreign, true],
      [nobody, false],
    ],
  },
  {
    name: '1.8 CUSTOM asks its provider about what its rules match',
    modes: both,
    providers: { test: 'agent' },
    policies: [everyone, policy({ action: 'CUSTOM', provider: { name: 'test' }, ...to({ paths: ['/asked*'] }) })],
    answers: [
      [at('/asked', { provider: 'allowed' }), true],
      [at('/asked', { provider: 'denied' }), false],
      [at('/free', { provider: 'denied' }), true],
    ],
  },
  {
    name: '1.8 CUSTOM with a provider that is not known refuses what it matches',
    modes: both,
    policies: [everyone, policy({ action: 'CUSTOM', provider: { name: 'nowhere' }, ...to({ paths: ['/asked*'] }) })],
    answers: [
      [at('/asked'), false],
      [at('/free'), true],
    ],
  },
  {
    name: '1.8 CUSTOM with several providers refuses what they match',
    modes: istioOnly,
    providers: { test: 'agent', 'test-2': 'agent' },
    policies: [
      everyone,
      policy({ action: 'CUSTOM', provider: { name: 'test' }, ...to({ paths: ['/a'] }) }, { name: 'a' }),
      policy({ action: 'CUSTOM', provider: { name: 'test-2' }, ...to({ paths: ['/b'] }) }, { name: 'b' }),
    ],
    answers: [
      [at('/a', { provider: 'allowed' }), false],
      [at('/b', { provider: 'allowed' }), false],
      [at('/c'), true],
    ],
  },
  {
    name: '1.8 a DENY on dry run denies nothing',
    modes: both,
    policies: [everyone, policy({ action: 'DENY', rules: [{}] }, { annotations: { 'istio.io/dry-run': 'true' } })],
    answers: [
      [web, true],
      [nobody, true],
    ],
  },
  {
    name: '1.8 an ALLOW on dry run allows nothing, and opens or closes nothing',
    modes: both,
    policies: [policy(from({ principals: ['*'] })), policy({ rules: [{}] }, { name: 'dry', annotations: { 'istio.io/dry-run': 'true' } })],
    answers: [
      [web, true],
      [nobody, false],
    ],
  },
]

const order: readonly Row[] = [
  {
    name: '1.1 without an ALLOW policy everything is open, or nothing',
    modes: both,
    policies: [policy({ action: 'DENY', ...to({ paths: ['/no'] }) })],
    answers: [
      [at('/no'), false],
      [at('/'), { strict: false, istio: true }],
    ],
    tcp: true,
  },
  {
    name: '1.1 DENY comes before ALLOW',
    modes: both,
    policies: [everyone, policy({ action: 'DENY', ...to({ paths: ['/no'] }) })],
    answers: [
      [at('/no'), false],
      [at('/'), true],
    ],
  },
  {
    name: '1.1 CUSTOM comes before DENY and ALLOW, and cannot allow',
    modes: both,
    providers: { test: 'agent' },
    policies: [
      policy(to({ paths: ['/yes*'] })),
      policy({ action: 'DENY', ...to({ paths: ['/yes/no'] }) }, { name: 'no' }),
      policy({ action: 'CUSTOM', provider: { name: 'test' }, rules: [{}] }, { name: 'ask' }),
    ],
    answers: [
      [at('/yes', { provider: 'allowed' }), true],
      [at('/yes', { provider: 'denied' }), false],
      [at('/yes/no', { provider: 'allowed' }), false],
      [at('/else', { provider: 'allowed' }), false],
    ],
  },
  {
    name: '1.1 AUDIT marks, and decides nothing',
    modes: both,
    policies: [policy(to({ paths: ['/a', '/b'] })), policy({ action: 'AUDIT', ...to({ paths: ['/a', '/c'] }) }, { name: 'audit' })],
    answers: [
      [at('/a'), true],
      [at('/b'), true],
      [at('/c'), false],
    ],
  },
  {
    name: '1.2 a rule is (one of from) and (one of to) and (all of when)',
    modes: both,
    policies: [
      policy({
        rules: [
          {
            from: [{ source: { principals: ['example.org/ns/shop/sa/web'] } }, { source: { principals: ['other.test/ns/shop/sa/web'] } }],
            to: [{ operation: { methods: ['GET'], paths: ['/a'] } }, { operation: { methods: ['POST'] } }],
            when: [
              { key: 'request.headers[x-a]', values: ['1', '2'] },
              { key: 'request.headers[x-b]', notValues: ['3'] },
            ],
          },
        ],
      }),
    ],
    answers: [
      [at('/a', { headers: [['x-a', '1']] }), true],
      [at('/a', { headers: [['x-a', '2']], caller: 'foreign' }), true],
      [at('/b', { headers: [['x-a', '1']], method: 'POST' }), true],
      [at('/b', { headers: [['x-a', '1']] }), false],
      [at('/a', { headers: [['x-a', '3']] }), false],
      [
        at('/a', {
          headers: [
            ['x-a', '1'],
            ['x-b', '3'],
          ],
        }),
        false,
      ],
      [at('/a', { headers: [['x-a', '1']], caller: 'other' }), false],
    ],
  },
]

const selection: readonly Row[] = [
  {
    name: '1.6 a policy of the root namespace is for everyone',
    modes: both,
    policies: [policy({ rules: [{}] }, { namespace: 'istio-system' })],
    answers: [[web, true]],
  },
  {
    name: '1.6 a policy of another namespace is not',
    modes: both,
    policies: [everyone, policy({ action: 'DENY', rules: [{}] }, { namespace: 'bank' })],
    answers: [[web, true]],
  },
  {
    name: '1.6 a selector that fits',
    modes: both,
    policies: [everyone, policy({ action: 'DENY', selector: { matchLabels: { app: 'server' } }, rules: [{}] })],
    answers: [[web, false]],
  },
  {
    name: '1.6 a selector that does not fit',
    modes: both,
    policies: [everyone, policy({ action: 'DENY', selector: { matchLabels: { app: 'server', tier: 'gold' } }, rules: [{}] })],
    answers: [[web, true]],
  },
  {
    name: '1.6 a workload that is no gateway ignores targetRefs',
    modes: both,
    policies: [
      everyone,
      policy({ action: 'DENY', targetRefs: [{ group: 'gateway.networking.k8s.io', kind: 'Gateway', name: 'g' }], rules: [{}] }),
    ],
    answers: [[web, true]],
  },
]

const tcpRow = (name: string, policies: readonly string[], answers: Row['answers'], modes = both): Row => ({
  name: `1.7 ${name}`,
  modes,
  policies,
  answers: answers.map(([sent, answer]) => [{ ...sent, tcp: true }, answer]),
  tcp: true,
})

const connections: readonly Row[] = [
  tcpRow(
    'ALLOW about HTTP: the whole rule is dropped',
    [policy(to({ paths: ['/a'] }))],
    [
      [web, false],
      [nobody, false],
    ],
  ),
  tcpRow(
    'ALLOW about HTTP or a port: the whole rule is dropped, or what asks for HTTP',
    [policy({ rules: [{ to: [{ operation: { paths: ['/a'] } }, { operation: { notPorts: ['1'] } }] }] })],
    [[web, { strict: true, istio: false }]],
  ),
  tcpRow(
    'ALLOW rules about HTTP beside one that is not',
    [
      policy({
        rules: [{ to: [{ operation: { methods: ['GET'] } }] }, { from: [{ source: { principals: ['example.org/ns/shop/sa/web'] } }] }],
      }),
    ],
    [
      [web, true],
      [other, false],
      [nobody, false],
    ],
  ),
  tcpRow(
    'if every ALLOW rule is dropped nothing is allowed',
    [policy({ rules: [{ to: [{ operation: { hosts: ['a'] } }] }, { when: [{ key: 'request.headers[x]', values: ['a'] }] }] })],
    [[web, false]],
  ),
  tcpRow(
    'DENY about HTTP alone denies every connection',
    [everyone, policy({ action: 'DENY', ...to({ paths: ['/admin'] }) })],
    [
      [web, false],
      [nobody, false],
    ],
  ),
  tcpRow(
    'DENY about HTTP and a peer denies every connection of the peer',
    [
      everyone,
      policy({
        action: 'DENY',
        rules: [{ from: [{ source: { principals: ['example.org/ns/shop/sa/web'] } }], to: [{ operation: { notMethods: ['GET'] } }] }],
      }),
    ],
    [
      [web, false],
      [other, true],
      [nobody, true],
    ],
  ),
  tcpRow(
    'DENY about tokens denies every connection',
    [everyone, policy({ action: 'DENY', ...from({ requestPrincipals: ['https://issuer.test/alice'] }) })],
    [[web, false]],
  ),
  tcpRow('AUDIT about HTTP decides nothing', [everyone, policy({ action: 'AUDIT', ...to({ paths: ['/admin'] }) })], [[web, true]]),
  tcpRow(
    'principals',
    [policy(from({ principals: ['example.org/ns/shop/sa/web'] }))],
    [
      [web, true],
      [other, false],
      [nobody, false],
    ],
  ),
  tcpRow(
    'notPrincipals',
    [policy(from({ notPrincipals: ['example.org/ns/shop/sa/web'] }))],
    [
      [web, false],
      [other, true],
      [nobody, { strict: false, istio: true }],
    ],
  ),
  tcpRow(
    'serviceAccounts',
    [policy(from({ serviceAccounts: ['shop/web'] }))],
    [
      [web, true],
      [other, false],
      [nobody, false],
    ],
  ),
  tcpRow(
    'namespaces',
    [policy(from({ namespaces: ['shop'] }))],
    [
      [web, true],
      [nobody, false],
    ],
  ),
  tcpRow(
    'trustDomains',
    [policy(from({ trustDomains: ['other.test'] }))],
    [
      [web, false],
      [foreign, true],
    ],
  ),
  tcpRow(
    'ipBlocks',
    [policy(from({ ipBlocks: ['127.0.0.1'] }))],
    [
      [web, true],
      [{ sourceIp: '127.0.0.2' }, false],
    ],
  ),
  tcpRow(
    'remoteIpBlocks',
    [policy(from({ remoteIpBlocks: ['127.0.0.1'] }))],
    [
      [web, true],
      [{ sourceIp: '127.0.0.2' }, false],
    ],
  ),
  tcpRow('ports', [policy(to({ notPorts: ['1'] }))], [[web, true]]),
  tcpRow('destination.ip', [policy(when('destination.ip', ['127.0.0.0/8']))], [[web, true]]),
  tcpRow(
    'connection.sni',
    [policy(when('connection.sni', ['a.test']))],
    [
      [{ sni: 'a.test' }, true],
      [{ sni: 'b.test' }, false],
      [web, false],
    ],
  ),
  tcpRow(
    'a condition about a peer',
    [policy({ rules: [{ condition: "connection.uri_san_peer_certificate.endsWith('/sa/web')" }] }, { ours: true })],
    [
      [web, true],
      [other, false],
      [nobody, false],
    ],
  ),
  tcpRow(
    'a condition about HTTP in ALLOW',
    [policy({ rules: [{ condition: "request.method == 'GET'" }] }, { ours: true })],
    [[web, false]],
  ),
  tcpRow(
    'a condition about HTTP in DENY',
    [everyone, policy({ action: 'DENY', rules: [{ condition: "request.method == 'GET'" }] }, { ours: true })],
    [[web, false]],
  ),
]

const cel = (condition: string, action: 'ALLOW' | 'DENY', answers: Row['answers']): Row => ({
  name: `5.1 condition in ${action}: ${condition}`,
  modes: both,
  policies:
    action === 'DENY'
      ? [everyone, policy({ action, rules: [{ condition }] }, { ours: true })]
      : [policy({ requirePeer: false, rules: [{ condition }] }, { ours: true })],
  answers,
})
const conditions: readonly Row[] = (['ALLOW', 'DENY'] as const).flatMap((action) => {
  const yes = action === 'ALLOW'
  return [
    cel("request.method == 'GET'", action, [
      [web, yes],
      [{ method: 'POST' }, !yes],
    ]),
    cel("request.method in ['GET', 'PUT'] || request.url_path.startsWith('/open/')", action, [
      [web, yes],
      [{ method: 'POST' }, !yes],
      [at('/open/x', { method: 'POST' }), yes],
    ]),
    cel("request.headers['x-a'] == 'abc'", action, [
      [withHeader('abc'), yes],
      [withHeader('x'), !yes],
      [web, false],
      [withHeader('abc', 'abc'), false],
    ]),
    cel("request.headers['x-a'] != 'abc'", action, [
      [withHeader('abc'), !yes],
      [withHeader('x'), yes],
      [web, false],
    ]),
    cel("!('x-a' in request.headers)", action, [
      [withHeader('abc'), !yes],
      [web, yes],
    ]),
    cel("request.headers['x-a'].matches('^[0-9]+$')", action, [
      [withHeader('123'), yes],
      [withHeader('12a'), !yes],
      [web, false],
    ]),
    cel("request.headers['x-a'].contains('b') && request.headers['x-a'].endsWith('c')", action, [
      [withHeader('abc'), yes],
      [withHeader('ac'), !yes],
    ]),
    cel("connection.mtls && connection.uri_san_peer_certificate.startsWith('spiffe://example.org/')", action, [
      [web, yes],
      [foreign, !yes],
    ]),
    cel("connection.requested_server_name == 'a.test'", action, [
      [{ sni: 'a.test' }, yes],
      [{ sni: 'b.test' }, !yes],
      [web, false],
    ]),
    cel('destination.port < 1024 || destination.port == 1', action, [[web, !yes]]),
    cel("request.method == 'GET' ? request.url_path == '/a' : request.url_path == '/b'", action, [
      [at('/a'), yes],
      [at('/b'), !yes],
      [at('/b', { method: 'POST' }), yes],
      [at('/a', { method: 'POST' }), !yes],
    ]),
  ]
})

/** Everyone may enter, if the connection and the token are right. */
function authentication(
  name: string,
  documents: (port: number, jwks: string) => readonly string[],
  answers: Row['answers'],
  modes = both,
  policies: readonly string[] = [everyone],
): Row {
  return { name: `1.9 ${name}`, modes, policies: [], answers, alone: (port, jwks) => [...policies, ...documents(port, jwks)] }
}

type Mode = 'UNSET' | 'DISABLE' | 'PERMISSIVE' | 'STRICT'
interface PeerOptions {
  readonly name?: string
  readonly namespace?: string
  readonly app?: string
  readonly ports?: Readonly<Record<number, Mode>>
  readonly createdAt?: string
}
/** A `PeerAuthentication`: of a workload where it names an app. */
function peers(mode: Mode | undefined, { name = 'peers', namespace = 'shop', app, ports, createdAt }: PeerOptions = {}): string {
  return JSON.stringify({
    apiVersion: 'security.istio.io/v1',
    kind: 'PeerAuthentication',
    metadata: { name, namespace, ...(createdAt !== undefined && { creationTimestamp: createdAt }) },
    spec: {
      ...(app !== undefined && { selector: { matchLabels: { app } } }),
      ...(mode && { mtls: { mode } }),
      ...(ports && { portLevelMtls: Object.fromEntries(Object.entries(ports).map(([port, each]) => [port, { mode: each }])) }),
    },
  })
}
const mesh = (mode: Mode): string => peers(mode, { name: 'mesh', namespace: 'istio-system' })
const own = (mode: Mode | undefined, ports?: PeerOptions['ports']): string =>
  peers(mode, { name: 'own', app: 'server', ...(ports && { ports }) })
const plaintext = (taken: boolean): Row['answers'] => [
  [web, true],
  [nobody, taken],
]
const [before, after] = ['2026-01-01T00:00:00Z', '2026-02-01T00:00:00Z']

const peerAuthentication: readonly Row[] = [
  authentication('without a PeerAuthentication connections with and without mTLS are taken', () => [], plaintext(true)),
  authentication('PERMISSIVE takes connections with and without mTLS', () => [mesh('PERMISSIVE')], plaintext(true)),
  authentication('STRICT of the mesh takes mTLS alone', () => [mesh('STRICT')], plaintext(false)),
  authentication('STRICT of the namespace takes mTLS alone', () => [peers('STRICT')], plaintext(false)),
  authentication('STRICT of the workload takes mTLS alone', () => [own('STRICT')], plaintext(false)),
  authentication('DISABLE takes connections without mTLS', () => [mesh('DISABLE')], [[nobody, true]]),
  authentication('the namespace goes before the mesh', () => [mesh('STRICT'), peers('PERMISSIVE')], plaintext(true)),
  authentication('the namespace goes before the mesh, STRICT too', () => [mesh('PERMISSIVE'), peers('STRICT')], plaintext(false)),
  authentication('the workload goes before the namespace', () => [mesh('STRICT'), peers('STRICT'), own('PERMISSIVE')], plaintext(true)),
  authentication('the workload goes before the namespace, STRICT too', () => [peers('PERMISSIVE'), own('STRICT')], plaintext(false)),
  authentication('UNSET inherits from the next wider scope', () => [mesh('STRICT'), peers('UNSET'), own(undefined)], plaintext(false)),
  authentication('UNSET everywhere is PERMISSIVE', () => [mesh('UNSET'), peers('UNSET')], plaintext(true)),
  authentication(
    'of two in one scope the oldest counts',
    () => [peers('PERMISSIVE', { name: 'a', createdAt: after }), peers('STRICT', { name: 'b', createdAt: before })],
    plaintext(false),
  ),
  authentication(
    'of two in one scope the oldest counts, PERMISSIVE too',
    () => [peers('STRICT', { name: 'a', createdAt: after }), peers('PERMISSIVE', { name: 'b', createdAt: before })],
    plaintext(true),
  ),
  authentication('a port may be STRICT where the workload is not', (port) => [own('PERMISSIVE', { [port]: 'STRICT' })], plaintext(false)),
  authentication('a port may be PERMISSIVE where the workload is STRICT', (port) => [own('STRICT', { [port]: 'PERMISSIVE' })], plaintext(true)),
  authentication('a port that is UNSET is as the workload', (port) => [own('STRICT', { [port]: 'UNSET' })], plaintext(false)),
  authentication('a port that inherits a mode from the mesh', (port) => [mesh('STRICT'), own(undefined, { [port]: 'UNSET' })], plaintext(false)),
  authentication('the mode of another port says nothing', () => [own('STRICT', { 1: 'PERMISSIVE' })], plaintext(false)),
  authentication('one of another namespace or workload says nothing', () => [peers('STRICT', { namespace: 'bank' }), peers('STRICT', { name: 'x', app: 'x' })], plaintext(true)),
  authentication('one of the root namespace with a selector is ignored', () => [peers('STRICT', { namespace: 'istio-system', app: 'server' })], plaintext(true), istioOnly),
] // prettier-ignore

/** A `RequestAuthentication` with one rule. */
const tokens = (rule: object, { name = 'tokens', namespace = 'shop' } = {}): string =>
  document('RequestAuthentication', { jwtRules: [rule] }, { name, namespace })
const alice = ['https://issuer.test/alice']
const forAlice = [policy(from({ requestPrincipals: alice }))]
const forOthers = [policy(from({ notRequestPrincipals: alice }))]
const bad = (['expired', 'forged', 'garbage'] as const).map((badToken) => [{ badToken }, false] as const)
const issuer = issuers[0]
const unread: Sent = { ...token(), tokenIn: 'unread' }

const requestAuthentication: readonly Row[] = [
  authentication('a token that is not valid is refused, and none is needed', (_port, jwks) => [tokens({ issuer, jwks })], [[web, true], [nobody, true], [token(), true], ...bad]),
  authentication('without a RequestAuthentication no token is looked at', () => [], [[web, true], ...(['expired', 'forged', 'garbage'] as const).map((badToken) => [{ badToken }, true] as const)]),
  authentication('without a RequestAuthentication no requestPrincipals match', () => [], [[web, false], [unread, false]], both, forAlice),
  authentication('without a RequestAuthentication all notRequestPrincipals match', () => [], [[web, { strict: false, istio: true }], [unread, { strict: false, istio: true }]], both, forOthers),
  authentication('the issuer is compared exactly', (_port, jwks) => [tokens({ issuer, jwks })], [[token({}, issuer), true], [token({}, `${issuer}/`), false], [token({}, issuer.toUpperCase()), false], [token({ iss: undefined }), false]]),
  authentication('one of the audiences is enough', (_port, jwks) => [tokens({ issuer, jwks, audiences: ['a', 'b'] })], [[web, true], [token({ aud: 'a' }), true], [token({ aud: ['x', 'b'] }), true], [token({ aud: 'x' }), false], [token(), false]]),
  authentication('without audiences every audience is taken', (_port, jwks) => [tokens({ issuer, jwks })], [[token({ aud: 'x' }), true], [token(), true]]),
  authentication('several issuers: each has tokens of its own', (_port, jwks) => [tokens({ issuer, jwks }), tokens({ issuer: issuers[1], jwks, audiences: ['a'] }, { name: 'more' })], [[token(), true], [token({ aud: 'a' }, issuers[1]), true], [token({}, issuers[1]), false], ...bad]),
  authentication('a token is read from Authorization and ?access_token where nothing is said', (_port, jwks) => [tokens({ issuer, jwks })], [[token(), true], [{ ...token(), tokenIn: 'access_token' }, true], [unread, false]], both, forAlice),
  authentication('fromHeaders: a token is read there, and nowhere else', (_port, jwks) => [tokens({ issuer, jwks, fromHeaders: [{ name: 'x-token', prefix: 'Token ' }] })], [[{ ...token(), tokenIn: 'x-token' }, true], [unread, false], [web, false]], both, forAlice),
  authentication('fromParams: a token is read there, and nowhere else', (_port, jwks) => [tokens({ issuer, jwks, fromParams: ['tok'] })], [[{ ...token(), tokenIn: 'tok' }, true], [unread, false], [web, false]], both, forAlice),
  authentication('fromCookies: a token is read there, and nowhere else', (_port, jwks) => [tokens({ issuer, jwks, fromCookies: ['session'] })], [[{ ...token(), tokenIn: 'cookie' }, true], [unread, false], [web, false]], both, forAlice),
  authentication('one of the root namespace is for everyone', (_port, jwks) => [tokens({ issuer, jwks }, { namespace: 'istio-system' })], [[token(), true], [web, false], ...bad], both, forAlice),
  authentication('one of another namespace reads nothing here', (_port, jwks) => [tokens({ issuer, jwks }, { namespace: 'bank' })], [[unread, false], [{ badToken: 'forged' }, false]], both, forAlice),
] // prettier-ignore

export const rows: readonly Row[] = [
  ...order,
  ...field('principals', ['example.org/ns/shop/sa/web'], 'source', [web], [other, deep, foreign], [nobody], both, true),
  ...field('principals', ['example.org/*'], 'source', [web, other, deep], [foreign], [nobody]),
  ...field('principals', ['*/sa/web'], 'source', [web, foreign], [other, deep], [nobody]),
  ...field('principals', ['*'], 'source', [web, other, foreign], [], [nobody]),
  ...field('principals', ['example.org/ns/sh*'], 'source', [web], [deep, foreign], [nobody], istioOnly),
  ...field('serviceAccounts', ['web'], 'source', [web, foreign], [other], [nobody]),
  ...field('serviceAccounts', ['shop/web', 'bank/x'], 'source', [web, foreign], [other], [nobody]),
  ...field('namespaces', ['shop'], 'source', [web, other, foreign], [], [nobody]),
  ...field('namespaces', ['s*p', 'bank'], 'source', [web, other, foreign], [], [nobody]),
  ...field('trustDomains', ['example.org'], 'source', [web, other, deep], [foreign], [nobody], both, true),
  ...field('trustDomains', ['exam*'], 'source', [web, deep], [foreign], [nobody]),
  ...field('trustDomains', ['*.test'], 'source', [foreign], [web], [nobody]),
  ...field('trustDomains', ['*'], 'source', [web, foreign], [], [nobody]),
  ...field('requestPrincipals', ['https://issuer.test/alice'], 'source', [token()], [token({ sub: 'bob' })], [web]),
  ...field('ipBlocks', ['127.0.0.1', '10.0.0.0/8'], 'source', [web, nobody], [{ sourceIp: '127.0.0.2' }]),
  ...field('ipBlocks', ['127.0.0.2/31'], 'source', [{ sourceIp: '127.0.0.2' }, { sourceIp: '127.0.0.3' }], [web]),
  ...field('remoteIpBlocks', ['10.1.0.0/16', '2001:db8::/32'], 'source', [{ remoteIp: '10.1.2.3' }, { remoteIp: '2001:db8::1' }], [web, { remoteIp: '10.2.0.1' }]),
  ...field('hosts', ['shop.test'], 'operation', [web], [{ host: 'other.test' }]),
  ...field('ports', ['1'], 'operation', [], [web, nobody], [], both, true),
  ...field('methods', ['GET'], 'operation', [web], [{ method: 'POST' }, { method: 'HEAD' }]),
  ...field('paths', ['/a', '/b/{*}'], 'operation', [at('/a'), at('/b/c')], [at('/'), at('/b/c/d')]),
  ...condition('request.headers[x-a]', ['abc'], [withHeader('abc')], [withHeader('x')]),
  ...condition('source.ip', ['127.0.0.1'], [web], [{ sourceIp: '127.0.0.2' }]),
  ...condition('remote.ip', ['10.0.0.0/8'], [{ remoteIp: '10.0.0.1' }], [web]),
  ...condition('source.namespace', ['shop'], [web, other], [], [nobody]),
  ...condition('source.serviceAccount', ['shop/web'], [web], [other], [nobody]),
  ...condition('source.trustDomain', ['example.org'], [web], [foreign], [nobody]),
  ...condition('source.principal', ['example.org/ns/shop/sa/web'], [web], [other], [nobody]),
  ...condition('request.auth.principal', ['https://issuer.test/alice'], [token()], [token({ sub: 'bob' })], [web]),
  ...condition('request.auth.audiences', ['a'], [token({ aud: 'a' }), token({ aud: ['b', 'a'] })], [token({ aud: 'b' }), token()], [web]),
  ...condition('request.auth.presenter', ['cli'], [token({ azp: 'cli' })], [token({ azp: 'x' })], [web]),
  ...condition('request.auth.claims[a][b]', ['c'], [token({ a: { b: 'c' } }), token({ a: { b: ['x', 'c'] } })], [token({ a: 'c' }), token({ a: { b: 'd' } }), token({ a: [{ b: 'c' }] })], [web]),
  ...condition('request.auth.claims[scope]', ['write'], [token({ scope: 'read write' }), token({ scope: ['write'] })], [token({ scope: 'writer' })], [web]),
  ...condition('request.auth.claims[roles]', ['admin'], [token({ roles: 'user admin' }, 'issuer')], [token({ roles: 'user admin' })], [web]),
  ...condition('request.auth.claims[a[b]', ['c'], [token({ 'a[b': 'c' })], [token({ a: { b: 'c' } })], [web], '1.3', istioOnly),
  ...condition('destination.ip', ['127.0.0.0/8'], [web], []),
  ...condition('destination.port', ['1', '2'], [], [web]),
  ...condition('connection.sni', ['a.test'], [{ sni: 'a.test' }], [{ sni: 'b.test' }], [web]),
  ...condition(`experimental.${metadataFilter}[meta]`, ['v'], [{ meta: 'v' }], [{ meta: 'w' }], [web]),
  ...valueForms,
  ...hostForms,
  ...pathForms,
  ...methodForms,
  ...requestPrincipals,
  { name: '1.5 `{*}` is one segment', modes: both, policies: [policy(to({ paths: ['/a/{*}/c'] }))], answers: [[at('/a/b/c'), true], [at('/a/b-_.~%20/c'), true], [at('/a/b/b/c'), false], [at('/a//c'), false], [at('/a/b/cc'), false]] },
  { name: '1.5 `{**}` is the rest', modes: both, policies: [policy(to({ paths: ['/a/{**}'] }))], answers: [[at('/a/'), true], [at('/a/b'), true], [at('/a/b/c'), true], [at('/a'), false], [at('/ab'), false]] },
  { name: '1.5 templates leak in DENY', modes: both, policies: [everyone, policy({ action: 'DENY', ...to({ paths: ['/admin/{**}'] }) })], answers: [[at('/admin/x'), false], [at('/admin/a[0]'), { strict: false, istio: true }], [at('/admin/a=b'), false]] },
  { name: '1.5 a template in ALLOW is narrow', modes: both, policies: [policy(to({ paths: ['/a/{*}'] }))], answers: [[at('/a/x'), true], [at('/a/x[0]'), { strict: true, istio: false }]] },
  ...selection,
  ...connections,
  ...edges,
  ...conditions,
  ...peerAuthentication,
  ...requestAuthentication,
] // prettier-ignore
