import { describe, expect, test } from 'vitest'
import { parseCel } from '../../src/policy/cel.ts'
import { decide } from '../../src/policy/evaluate.ts'
import { checkPolicies } from '../../src/policy/language.ts'
import type { PolicyMode } from '../../src/policy/policy-set.ts'
import { compiled, everything, istios, ours, request, web } from './make.ts'

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

/** Every field that the language has, once. */
const whole: readonly Json[] = [
  {
    apiVersion: 'vidimus.dev/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name: 'all', namespace: 'shop' },
    spec: {
      identities: ['spiffe://example.org/{**}'],
      selector: { matchLabels: { app: 'x' } },
      action: 'ALLOW',
      requirePeer: true,
      expires: '2030-01-01',
      rules: [
        {
          from: [
            {
              source: {
                principals: ['example.org/ns/a/sa/b'], notPrincipals: ['example.org/x'], namespaces: ['a'], notNamespaces: ['b'],
                trustDomains: ['example.org'], notTrustDomains: ['other.org'], requestPrincipals: ['i/s'], notRequestPrincipals: ['i/t'],
                ipBlocks: ['10.0.0.0/8'], notIpBlocks: ['10.1.0.0/16'], remoteIpBlocks: ['10.0.0.0/8'], notRemoteIpBlocks: ['10.1.0.0/16'],
                spiffeIds: ['spiffe://example.org/a'], notSpiffeIds: ['spiffe://example.org/b'],
              },
            },
            { source: { serviceAccounts: ['a/b'], notServiceAccounts: ['a/c'] } },
          ],
          to: [
            { operation: { hosts: ['a'], notHosts: ['b'], ports: ['80'], notPorts: ['81'], methods: ['GET'], notMethods: ['PUT'], paths: ['/a'], notPaths: ['/b'] } },
          ],
          when: [{ key: 'request.headers[x]', values: ['a'], notValues: ['b'] }, { key: 'request.auth.claims[a][b]', values: ['c'] }],
          condition: "request.method == 'GET'",
        },
      ],
    },
  },
  { apiVersion: 'security.istio.io/v1', kind: 'AuthorizationPolicy', metadata: { name: 'ask', namespace: 'shop' }, spec: { action: 'CUSTOM', provider: { name: 'p' }, rules: [{ to: [{ operation: { paths: ['/a'] } }] }] } },
  { apiVersion: 'security.istio.io/v1', kind: 'AuthorizationPolicy', metadata: { name: 'gw', namespace: 'shop' }, spec: { targetRefs: [{ group: 'gateway.networking.k8s.io', kind: 'Gateway', name: 'g' }], rules: [{ when: [{ key: 'source.ip', values: ['10.0.0.1'] }] }] } },
  { apiVersion: 'security.istio.io/v1', kind: 'PeerAuthentication', metadata: { name: 'pa', namespace: 'shop' }, spec: { selector: { matchLabels: { a: 'b' } }, mtls: { mode: 'STRICT' }, portLevelMtls: { '80': { mode: 'DISABLE' } } } },
  {
    apiVersion: 'security.istio.io/v1',
    kind: 'RequestAuthentication',
    metadata: { name: 'ra', namespace: 'shop' },
    spec: {
      selector: { matchLabels: { a: 'b' } },
      jwtRules: [
        { issuer: 'i', audiences: ['a'], jwks: '{}', fromHeaders: [{ name: 'x', prefix: 'y' }], fromParams: ['p'], fromCookies: ['c'], forwardOriginalToken: true, outputPayloadToHeader: 'h', outputClaimToHeaders: [{ header: 'h', claim: 'c' }], timeout: '5s', spaceDelimitedClaims: ['s'] },
      ],
    },
  },
] // prettier-ignore

const check = (documents: readonly Json[], mode: PolicyMode) =>
  checkPolicies(
    documents.map((document, index) => ({ name: `${index}.yaml`, text: JSON.stringify(document, undefined, 1) })),
    { mode },
  )

/** Every place in a document, as the keys that lead to it. */
function places(value: Json, path: readonly string[] = []): (readonly string[])[] {
  if (typeof value !== 'object' || value === null) return [path]
  return [path, ...Object.entries(value).flatMap(([key, inner]) => places(inner, [...path, key]))]
}

function replaced(value: Json, [key, ...rest]: readonly string[], by: Json): Json {
  if (key === undefined) return by
  if (Array.isArray(value)) return value.map((inner: Json, index) => (String(index) === key ? replaced(inner, rest, by) : inner))
  const map = value as Record<string, Json>
  return { ...map, [key]: replaced(map[key]!, rest, by) }
}

function at(value: Json, path: readonly string[]): Json {
  return path.reduce<Json>((inner, key) => (inner as Record<string, Json>)[key]!, value)
}

const kindOf = (value: Json): string => (value === null ? 'null' : Array.isArray(value) ? 'list' : typeof value)
const wrongs: readonly Json[] = [null, 7, true, 'x', ['x'], [null], { x: 'y' }, [{}], [[]]]

describe('wrong types in every field', { timeout: 60_000 }, () => {
  test('the documents are right before anything is changed', () => {
    for (const mode of ['strict', 'istio'] as const) expect(check(whole, mode).problems).toEqual([])
  })

  for (const mode of ['strict', 'istio'] as const) {
    test(`${mode}: each is refused with its place, or is of the right type`, () => {
      let refused = 0
      for (const document of whole) {
        for (const path of places(document).filter((one) => one.length > 0)) {
          for (const wrong of wrongs) {
            const { set, problems } = check([replaced(document, path, wrong)], mode)
            for (const { document: name, line, column } of problems) {
              expect(name).toBe('0.yaml')
              expect(Math.min(line, column)).toBeGreaterThan(0)
            }
            const same = kindOf(wrong) === kindOf(at(document, path))
            // Istio's decoder takes a mode of nothing for one that is inherited.
            const inherited = wrong === null && path.some((key) => key === 'mtls' || key === 'portLevelMtls')
            if (!same && !inherited && set) expect([path.join('.'), wrong]).toEqual(['was refused', undefined])
            if (!set) refused++
          }
        }
      }
      expect(refused).toBeGreaterThan(500)
    })
  }

  test('R-11 no list of the strict language may be empty', () => {
    for (const document of whole) {
      for (const path of places(document).filter((one) => one.length > 0 && Array.isArray(at(document, one)))) {
        const { set } = check([replaced(document, path, [])], 'strict')
        // An ALLOW without rules allows nothing, which may be meant; where a token is found has a default.
        if (!['spec.rules', 'spec.jwtRules.0.fromHeaders', 'spec.jwtRules.0.outputClaimToHeaders'].includes(path.join('.')))
          expect([path.join('.'), set]).toEqual([path.join('.'), undefined])
      }
    }
  })

  test('an unknown key is refused wherever it stands', () => {
    for (const document of whole) {
      for (const path of [[], ...places(document)].filter(
        (one) => kindOf(at(document, one)) === 'object' && !one.includes('matchLabels'),
      )) {
        const grown = replaced(document, path, { ...(at(document, path) as Record<string, Json>), whatever: 'x' })
        expect([path.join('.'), check([grown], 'istio').set]).toEqual([path.join('.'), undefined])
      }
    }
  })
})

/** Milliseconds of CPU. */
function spent(work: () => unknown): number {
  const before = process.cpuUsage()
  work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1000
}

describe('R-24 what would take for ever is refused, or done, in bounded time', () => {
  const problemOf = (text: string) => checkPolicies([{ name: 'p.yaml', text }]).problems[0]

  test.each<[string, string]>([
    ['ten megabytes', `# ${'x'.repeat(10_485_760)}`],
    ['a billion laughs', ['a: &a [x,x,x,x,x,x,x,x,x]', ...'bcdefghi'.split('').map((name, index) => `${name}: &${name} [${Array.from({ length: 9 }, () => `*${'abcdefgh'[index]!}`).join(',')}]`)].join('\n')], // prettier-ignore
    ['an anchor alone', 'a: &x 1'],
    ['a key that is there a thousand times', 'kind: a\n'.repeat(1000)],
    ['a document a line', '---\na: b\n'.repeat(50_000)],
  ])('%s', (_, text) => {
    let problem: ReturnType<typeof problemOf>
    expect(spent(() => (problem = problemOf(text)))).toBeLessThan(8000)
    expect(problem).toMatchObject({ document: 'p.yaml', line: expect.any(Number) as number, column: expect.any(Number) as number })
  })

  test('ten thousand rules are read, and a decision among them is quick', () => {
    const rule = (index: number) => ({ to: [{ operation: { methods: ['GET'], paths: [`/area-${index}/*`] } }] })
    const texts = Array.from({ length: 20 }, (_, policy) =>
      ours({ rules: Array.from({ length: 500 }, (__, index) => rule(policy * 500 + index)) }, `p${policy}`),
    )
    let policies: ReturnType<typeof compiled>
    expect(spent(() => (policies = compiled(texts)))).toBeLessThan(15_000)
    expect(decide(policies!, request({ peer: web, path: '/area-9999/x' })).allowed).toBe(true)
    expect(spent(() => Array.from({ length: 1000 }, () => decide(policies, request({ peer: web, path: '/area-9999/x' }))))).toBeLessThan(
      1000,
    )
  })

  test.each([
    ['a condition that loops', '[1, 2].all(x, x > 0)'],
    ['one that counts', "request.headers['x'].size() > 3"],
    ['one that relates two attributes', "request.headers['x'] == request.method"],
    ['one that concatenates', "request.method + 'x' == 'GETx'"],
    ['one that replaces', "request.method.replace('a', 'b') == 'c'"],
    ['one about what is not there', "request.body == 'x'"],
    ['one about the path with its query', "request.path == '/a'"],
    ['one about a path in one of its spellings', "request.url_path == '/a@b'"],
    ['one about a path that never is', "request.url_path == '/a/../b'"],
    ['one that is no question', "'a'"],
    ['a number for a text', 'request.method == 1'],
    ['a text for a number', "destination.port == '80'"],
    ['an expression that is none', "request.method.matches('(')"],
    ['an expression that looks back', String.raw`request.headers['x'].matches('(a)\\1')`],
    ['more comparisons than anybody writes', Array.from({ length: 129 }, () => 'connection.mtls').join(' || ')],
    ['choices within choices', `${'(connection.mtls ? '.repeat(12)}true${' : connection.mtls)'.repeat(12)} && ${'((connection.mtls ? true : false) ? true : false)'.replaceAll('connection.mtls', '((connection.mtls ? true : false) ? connection.mtls : !connection.mtls)')}`.repeat(3)], // prettier-ignore
    ['three thousand characters', `connection.mtls || ${'!'.repeat(3000)}true`],
  ])('%s is refused, with its place', (_, condition) => {
    let problems: ReturnType<typeof checkPolicies>['problems'] = []
    const text = ours({ rules: [{ condition }] })
    expect(spent(() => ({ problems } = checkPolicies([{ name: 'p.yaml', text }])))).toBeLessThan(2000)
    expect(problems).toMatchObject([{ document: 'p.yaml', line: 1, path: 'spec.rules[0].condition' }])
  })

  test('an expression that would take for ever elsewhere takes time linear in the text here', () => {
    const policies = compiled([ours({ ...everything, rules: [{ condition: "request.headers['x'].matches('^(a+)+$')" }] })])
    const evil = request({ peer: web, headers: [['x', `${'a'.repeat(50_000)}!`]] })
    expect(spent(() => decide(policies, evil))).toBeLessThan(1000)
    expect(decide(policies, evil).allowed).toBe(false)
    expect(decide(policies, request({ peer: web, headers: [['x', 'aaa']] })).allowed).toBe(true)
  })

  test('R-31 keys like `__proto__` are keys', () => {
    expect(
      checkPolicies([{ name: 'p', text: istios({ rules: [{}] }).replace('"spec"', '"__proto__":{"a":1},"spec"') }]).problems[0]?.message,
    ).toContain('unknown key `__proto__`')
    const policies = compiled([istios({ rules: [{ when: [{ key: 'request.auth.claims[__proto__]', values: ['*'] }] }] })])
    expect(decide(policies, { ...request({ peer: web }), token: { claims: { iss: 'i' } } }).allowed).toBe(false)
  })

  test('a condition may be as long as people write them', () => {
    expect(parseCel("request.method in ['GET', 'HEAD'] && (request.url_path.startsWith('/a/') || !connection.mtls)").tree).toMatchObject({
      kind: 'all',
    })
  })
})
