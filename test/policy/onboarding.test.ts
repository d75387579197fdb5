import { expect, test } from 'vitest'
import { parsePolicySet } from '../../src/policy/language.ts'
import { decideOnboarding, onboardingPolicy } from '../../src/policy/onboarding.ts'
import { parseSelector } from '../../src/spiffe/selector.ts'
import { noon } from './make.ts'

const policy = (spec: object, name = 'p') => ({
  name,
  text: JSON.stringify({
    apiVersion: 'vidimus.dev/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name },
    spec: { target: 'onboarding', ...spec },
  }),
})
const when = (key: string, values: object, more: object = {}) => policy({ rules: [{ when: [{ key, ...values }] }], ...more })
const node = (type: string, ...selectors: readonly string[]) => ({ type, selectors: selectors.map(parseSelector) })
const web = node('x509pop', 'x509pop:subject:cn:web-1', 'x509pop:ca:fingerprint:ab')
const decided = (documents: readonly { name: string; text: string }[], request = web, at = noon) =>
  decideOnboarding(onboardingPolicy(parsePolicySet(documents)), request, at)

test('R-11 without policies, and with one that has no rules, nobody is admitted', () => {
  expect(decided([]).reason).toBe('no-policy')
  expect(decided([policy({})]).reason).toBe('no-rule-matched')
})

test('a node is admitted by what it proved, whole or by an end of it', () => {
  for (const [key, value, allowed] of [
    ['attested.x509pop.subject:cn', 'web-1', true],
    ['attested.x509pop.subject', 'cn:web-1', true],
    ['attested.x509pop.subject:cn', 'web-*', true],
    ['attested.x509pop.subject:cn', '*', true],
    ['attested.x509pop.subject:cn', 'web', false],
    ['attested.x509pop.subj', '*', false],
    ['attested.k8s_psat.subject:cn', 'web-1', false],
  ] as const)
    expect([key, value, decided([when(key, { values: [value] })]).allowed]).toEqual([key, value, allowed])
})

test('what was proved by evidence of another type counts for nothing', () => {
  const mixed = node('join_token', 'x509pop:subject:cn:web-1')
  expect(decided([when('attested.x509pop.subject:cn', { values: ['*'] })], mixed).allowed).toBe(false)
})

test('who did not prove it never satisfies a negation in ALLOW, and always in DENY', () => {
  const bare = node('x509pop', 'x509pop:ca:fingerprint:ab')
  const not = { notValues: ['web-2'] }
  expect(decided([when('attested.x509pop.subject:cn', not)], bare).allowed).toBe(false)
  expect(decided([when('attested.x509pop.subject:cn', not)]).allowed).toBe(true)
  const everyone = policy({ rules: [{}] }, 'everyone')
  const denying = when('attested.x509pop.subject:cn', { notValues: ['web-1'] }, { action: 'DENY' })
  expect(decided([everyone, denying], bare).reason).toBe('denied')
  expect(decided([everyone, denying]).reason).toBe('allowed')
})

test('a rule ends when it expires', () => {
  const soon = when('attested.x509pop.subject:cn', { values: ['*'] }, { expires: '2030-01-01' })
  expect(decided([soon], web, Date.parse('2029-12-31T23:59:59Z')).allowed).toBe(true)
  expect(decided([soon], web, Date.parse('2030-01-01T00:00:00Z')).allowed).toBe(false)
})
