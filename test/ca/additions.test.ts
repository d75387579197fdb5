import { expect, test } from 'vitest'
import { issuanceProfile } from '../../src/ca/profile.ts'
import { bundleSet } from '../../src/spiffe/bundle-set.ts'
import { verifyJwtSvid } from '../../src/spiffe/jwt-svid.ts'
import { verifyWitSvid } from '../../src/spiffe/wit-svid.ts'
import { verifyX509Svid } from '../../src/spiffe/x509-svid.ts'
import type { SubjectAttributes } from '../../src/x509/subject.ts'
import { never, openTestAuthority, provenKey, workload, type TestAuthority } from './support.ts'

const profile = { svid: { additions: { subject: ['country', 'organization', 'commonName'], claims: ['tier', 'groups'] } } } as const
const key = await provenKey()

const certificate = ({ ca }: TestAuthority, subject: SubjectAttributes, dnsNames: string[] = []) =>
  ca.issueX509Svid({ kind: 'workload', spiffeId: workload, key, subject, dnsNames, context: {} }, never)
const token = ({ ca }: TestAuthority, claims: object) =>
  ca.issueJwtSvid({ spiffeId: workload, audience: ['a'], claims: { ...claims }, context: {} }, never)
const boundToken = ({ ca }: TestAuthority, claims: object) =>
  ca.issueWitSvid({ spiffeId: workload, proofKey: key.spki, claims: { ...claims }, context: {} }, never)

test('a profile that lets entries say what a token says itself is refused', () => {
  for (const name of ['sub', 'aud', 'exp', 'cnf', 'kid'])
    expect(() => issuanceProfile({ svid: { additions: { claims: [name] } } })).toThrow(
      expect.objectContaining({ reason: 'claims.reserved' }),
    )
  expect(() => issuanceProfile({ svid: { additions: { claims: ['a b'] } } })).toThrow(expect.objectContaining({ reason: 'claims.name' }))
})

test('an SVID is refused, and the refusal recorded, where its entry adds what the profile does not let it add', async () => {
  await using opened = await openTestAuthority({ profile, witSvid: true })
  const cases = [
    ['ca.subject-not-allowed', () => certificate(opened, { organizationalUnit: 'admins' })],
    ['ca.claim-not-allowed', () => token(opened, { tier: 'gold', admin: true })],
    ['ca.claim-not-allowed', () => token(opened, { sub: 'spiffe://example.org/admin' })],
    ['ca.claim-not-allowed', () => boundToken(opened, { admin: true })],
  ] as const
  for (const [reason, issue] of cases) {
    await expect(issue()).rejects.toMatchObject({ reason })
    expect(opened.audit.at(-1)).toContain(`"reason":"${reason}"`)
  }
})

test('by default nothing may be added', async () => {
  await using opened = await openTestAuthority()
  await expect(certificate(opened, { organization: 'Team A' })).rejects.toMatchObject({ reason: 'ca.subject-not-allowed' })
  await expect(token(opened, { tier: 'gold' })).rejects.toMatchObject({ reason: 'ca.claim-not-allowed' })
})

test.for([
  ['that may be taken for a host', { commonName: 'bank' }, 'lint.common-name'],
  ['of more than 64 characters', { organization: 'x'.repeat(65) }, 'lint.subject-attributes'],
  ['with a character that nobody sees', { organization: 'a\u200bb' }, 'lint.subject-characters'],
  ['with a country in small letters', { country: 'de' }, 'lint.subject-country'],
] as const)('R-3 C-8 a subject %s reaches no key, even if nobody looked at it before', async ([, subject, reason]) => {
  await using opened = await openTestAuthority({ profile })
  const before = opened.intents.kept.length
  await expect(certificate(opened, subject)).rejects.toMatchObject({ reason })
  expect(opened.intents.kept.length).toBe(before)
})

test('a certificate has the subject of its entry laid over the usual one, and is an X509-SVID as before', async () => {
  await using opened = await openTestAuthority({ profile })
  const subjectOf = async (subject: SubjectAttributes, dnsNames: string[] = []) => {
    const { chain } = await certificate(opened, subject, dnsNames)
    expect(verifyX509Svid(chain, bundleSet([opened.ca.bundle.current]), opened.world.clock.now()).spiffeId).toBe(workload)
    return chain[0]!.subject.text
  }
  expect(await subjectOf({})).toBe('O=Vidimus')
  expect(await subjectOf({ country: 'US' })).toBe('O=Vidimus,C=US')
  expect(await subjectOf({ organization: 'SPIRE', country: 'US' })).toBe('O=SPIRE,C=US')
  expect(await subjectOf({ commonName: 'Payments service' }, ['a.example.org'])).toBe('CN=Payments service,O=Vidimus')
  expect(await subjectOf({ commonName: 'b.example.org' }, ['a.example.org', 'b.example.org'])).toBe('CN=b.example.org,O=Vidimus')
})

test('J-19 W-14 tokens carry the claims of their entry beside their own, and none instead of their own', async () => {
  await using opened = await openTestAuthority({ profile, witSvid: true })
  const claims = { tier: 'gold', groups: ['a', { b: [null, 1.5, true] }] }
  const [bundles, now] = [bundleSet([opened.ca.bundle.current]), opened.world.clock.now()]
  const jwt = await verifyJwtSvid((await token(opened, claims)).token, bundles, 'a', now)
  expect(JSON.parse(JSON.stringify(jwt.claims))).toMatchObject({ ...claims, sub: workload, aud: ['a'] })
  expect(Object.keys(jwt.claims).sort()).toEqual(['aud', 'exp', 'groups', 'iat', 'jti', 'sub', 'tier'])
  const wit = await verifyWitSvid((await boundToken(opened, claims)).token, bundles, now)
  expect(JSON.parse(JSON.stringify(wit.claims))).toMatchObject({ ...claims, sub: workload })
  expect(Object.keys(wit.claims).sort()).toEqual(['cnf', 'exp', 'groups', 'iat', 'jti', 'sub', 'tier'])
})
