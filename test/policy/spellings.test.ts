import { expect, test } from 'vitest'
import { decide } from '../../src/policy/evaluate.ts'
import { compiled, everything, ours, request, web } from './make.ts'

const ways = [
  '/', '//', '///', '/./', '/x/../', '/../', '/x/..//', '//x/../', '/%2e/', '/%2E/', '/x/%2e%2e/', '/x/.%2E/', '/x%2f..%2f', '/x/..%2F', '/x/%2e%2e%2f', '/%2f', '/%5c', '/\\', '/x\\..\\',
  '/x/..%5C', '/x/..;/', '/x/..;a=b/', '/x/%2e%2e;/', '/;/', '/;x/', '/a/b/../../', '/.%2f', '/%252e%252e/', '/%252f', '/%c0%ae%c0%ae/', '/%c0%af', '/%e0%80%af', '/%u002f', '/%00/',
] // prettier-ignore
const names = ['admin', '%61dmin', 'adm%69n', 'admi%6E', '%2561dmin', 'adm%c1%a9n']
const ends = [
  '', '?', '?x=1', '?/../y', '#', '#x', ';', ';x=1', '%3b', '%3Bx', '%3f', '%3Fx', '%23', '/', '//', '/.', '/x/..', '%2f', '%2F', '%5c', '\\', '/x', '%00', '%0a', '%', '%2', '/%2e', '/;', '/x;y',
] // prettier-ignore

const closed = [
  ours(everything, 'open'),
  ours({ action: 'DENY', rules: [{ to: [{ operation: { paths: ['/admin', '/admin/*'] } }] }] }, 'closed'),
]

test(`R-7 a DENY on a path holds for all ${ways.length * names.length * ends.length} spellings of it`, () => {
  const policies = compiled(closed)
  const spelled = ways.flatMap((way) => names.flatMap((name) => ends.map((end) => way + name + end)))
  expect(spelled.length).toBeGreaterThan(200)
  const through = spelled.filter((path) => decide(policies, request({ peer: web, path })).allowed)
  expect(through).toEqual([])
})

test('R-7 what is beside that path is not touched', () => {
  const policies = compiled(closed)
  for (const path of [
    '/',
    '/administrator',
    '/x/admin',
    '/Admin',
    '/orders?next=/admin',
    '/orders#/admin',
    '/a%20b',
    '/caf%C3%A9',
    '/admin%40x',
    '/.admin',
    '/admin../x',
  ]) {
    expect([path, decide(policies, request({ peer: web, path })).allowed]).toEqual([path, true])
  }
})

test('R-7 an ALLOW on a path does not open what a spelling of it leads to', () => {
  const policies = compiled([ours({ rules: [{ to: [{ operation: { paths: ['/public/*', '/img/{*}', '/docs/{**}'] } }] }] })])
  const inner = ['public', 'img', 'docs'].flatMap((top) =>
    [
      '..',
      '%2e%2e',
      '.%2e',
      '..;',
      '..;x',
      '%2e%2e;',
      '..%2f..',
      '..%5c..',
      'x\\..\\..',
      '%252e%252e',
      '%c0%ae%c0%ae',
      '..%00',
      '..%3b',
      'x/../..',
    ].map((up) => `/${top}/${up}/admin`),
  )
  for (const path of inner) expect([path, decide(policies, request({ peer: web, path })).allowed]).toEqual([path, false])
  for (const path of ['/public/x', '/img/a@b', '/docs/', '/docs/a/b/../c'])
    expect(decide(policies, request({ peer: web, path })).allowed).toBe(true)
})

test('R-7 escapes that change nothing do not change the verdict', () => {
  const policies = compiled([
    ours(everything, 'open'),
    ours({ action: 'DENY', rules: [{ to: [{ operation: { paths: ['/users/a@b.c', '/caf%C3%A9/*', '/x+y/{*}/z'] } }] }] }, 'closed'),
  ])
  for (const path of [
    '/users/a@b.c',
    '/users/a%40b.c',
    '/users/a%40b%2ec',
    '/caf%c3%a9/1',
    '/caf%C3%a9/1',
    '/x+y/1/z',
    '/x%2by/1/z',
    '/x%2By/a%5B0%5d/z',
  ]) {
    expect([path, decide(policies, request({ peer: web, path })).reason]).toEqual([path, 'denied'])
  }
})

test('R-7 a DENY on a host holds for all spellings of it', () => {
  const policies = compiled([
    ours(everything, 'open'),
    ours({ action: 'DENY', rules: [{ to: [{ operation: { hosts: ['Admin.Example.org', '*.internal'] } }] }] }, 'closed'),
  ])
  const hosts = ['admin.example.org', 'ADMIN.EXAMPLE.ORG', 'aDmIn.eXample.org', 'admin.example.org.', 'db.internal', 'DB.Internal.']
  for (const host of hosts.flatMap((one) => [one, `${one}:80`, `${one}:443`, `${one}:8080`])) {
    expect([host, decide(policies, request({ peer: web, host })).reason]).toEqual([host, 'denied'])
  }
})

test('R-7 a host that is none is refused', () => {
  const policies = compiled([ours(everything)])
  for (const host of [
    '',
    '.',
    ':80',
    'a b',
    'a@b',
    'user@admin.example.org',
    'a,b',
    'a/b',
    'a:b',
    'a:80:80',
    '[::1',
    '::1',
    'a%2eb',
    'ädmin',
    'a\u0000',
    'a..',
  ]) {
    const { allowed, reason } = decide(policies, request({ peer: web, host }))
    expect([host, allowed, reason]).toEqual([host, false, 'malformed-request'])
  }
  for (const host of ['a', '127.0.0.1', '127.0.0.1:80', '[::1]', '[::1]:80', 'a_b.c-d'])
    expect(decide(policies, request({ peer: web, host })).allowed).toBe(true)
})
