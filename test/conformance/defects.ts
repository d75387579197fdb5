/** For every rule that shows on a socket, what breaks that rule and no other. */
import { randomBytes } from 'node:crypto'
import type { Json } from '../../src/conformance/documents.ts'
import { spelled, stranger } from '../../src/conformance/vectors/spiffe-ids.ts'
import { methods, status } from '../../src/conformance/workload-api.ts'
import { parseCertificates } from '../../src/x509/certificate.ts'
import { encodeDer } from '../../src/x509/der-writer.ts'
import { writeKeyUsage, writeSubjectAltName } from '../../src/x509/extension.ts'
import { oid } from '../../src/x509/oid.ts'
import { type Defect, type Parts, refused } from './broken-workload-api.ts'

/** A parser that takes another spelling for the ID itself. */
const repairs = (variants: (id: string) => readonly string[]): Defect => ({
  reads: (asked, own) => (variants(own).includes(asked) ? own : asked),
})

/** A bundle of a trust domain whose ID is written so. */
const bundleNamed = (id: string): Defect => ({ bundles: { x509: (bundles) => new Map([...bundles, [id, [...bundles.values()][0]!]]) } })

const leaf = (wishes: Defect['leaf'] & object): Defect => ({ leaf: wishes })
const signer = (wishes: Defect['signer'] & object): Defect => ({ signer: wishes })
const jwtHeader = (header: Json): Defect => ({ jwt: { header } })
const jwtClaims = (claims: Json): Defect => ({ jwt: { claims } })
const witHeader = (header: Json): Defect => ({ wit: { header } })
const witClaims = (claims: Json): Defect => ({ wit: { claims } })
const accepts = (which: (header: Json, token: string, claims: Json) => boolean): Defect => ({
  accepts: (token, own) => (which(partOf(token, 0), token, partOf(token, 1)) ? own : undefined),
})
const second = (change: (svid: Parts) => Parts) => (svids: readonly Parts[]) =>
  svids.map((svid, index) => (index === 1 ? change(svid) : svid))
const ago = (seconds: number) => Math.floor(Date.now() / 1000) - seconds
const withKeyUsage = (critical: boolean): Defect =>
  leaf({ keyUsage: [], extra: [{ oid: oid.keyUsage, critical, value: encodeDer(writeKeyUsage(['digitalSignature'])) }] })

export const defects: Readonly<Record<string, readonly Defect[]>> = {
  'ID-1': [repairs(spelled.otherScheme), bundleNamed('https://other.example')],
  'ID-2': [repairs(spelled.withoutTrustDomain), bundleNamed('spiffe:///other')],
  'ID-3': [repairs(spelled.withQuery), bundleNamed('spiffe://other.example?')],
  'ID-4': [repairs(spelled.withFragment), bundleNamed('spiffe://other.example#a')],
  'ID-5': [repairs(spelled.withoutHost), bundleNamed('spiffe://')],
  'ID-6': [repairs(spelled.withUser), bundleNamed('spiffe://me@other.example')],
  'ID-7': [repairs(spelled.withPort), bundleNamed('spiffe://other.example:443')],
  'ID-8': [repairs(spelled.withCapitalHost), bundleNamed('spiffe://OTHER.example')],
  'ID-9': [repairs(spelled.withLookAlikeHost), bundleNamed('spiffe://other!example')],
  'ID-10': [repairs(spelled.withEncodedHost), bundleNamed('spiffe://other%2eexample')],
  'ID-11': [{ reads: (asked) => (asked === stranger.dotted ? refused(status.invalidArgument) : asked) }],
  'ID-12': [repairs(spelled.withEncodedPath), bundleNamed('spiffe://other.example/%61')],
  'ID-13': [repairs(spelled.withDotSegments), bundleNamed('spiffe://other.example/a/../b')],
  'ID-14': [repairs(spelled.withTrailingSlash), bundleNamed('spiffe://other.example/')],
  'ID-15': [repairs(spelled.withOtherCharacters), bundleNamed('spiffe://other.example/a+b')],
  'ID-16': [{ reads: (asked) => (asked.length > 1024 ? refused(status.invalidArgument) : asked) }],
  'ID-17': [bundleNamed(`spiffe://other.example/${'a'.repeat(2048)}`)],
  'ID-18': [bundleNamed(`spiffe://${'a'.repeat(256)}`)],
  'ID-19': [repairs(spelled.withCapitals), bundleNamed('SPIFFE://other.example')],
  'ID-22': [leaf({ uris: ['spiffe://example.org/elsewhere'] })],
  'ID-24': [
    { answer: { x509: second((svid) => ({ ...svid, 2: parseCertificates(svid[2] as Uint8Array)[0]!.raw })) } },
    accepts(({ kid, alg }, _token, { sub }) => kid === 'strangers-key' && alg === 'ES256' && sub !== stranger.named),
  ],

  'X-1': [leaf({ uris: ['spiffe://example.org/two', 'spiffe://example.org/other'] })],
  'X-4': [{ id: 'spiffe://example.org' }],
  'X-5': [
    leaf({
      uris: [],
      extra: [
        {
          oid: oid.subjectAltName,
          critical: false,
          value: encodeDer(writeSubjectAltName({ uris: ['spiffe://example.org/two'], dnsNames: [] })),
        },
      ],
    }),
  ],
  'X-6': [signer({ uris: [] })],
  'X-7': [signer({ uris: ['spiffe://example.org/ca'] })],
  'X-8': [signer({ uris: ['spiffe://other.example'] })],
  'X-11': [signer({ ca: false })],
  'X-12': [leaf({ ca: {} })],
  'X-15': [leaf({ keyUsage: [] }), withKeyUsage(false)],
  'X-16': [signer({ keyUsage: ['cRLSign'] })],
  'X-17': [leaf({ keyUsage: ['keyAgreement'] })],
  'X-18': [leaf({ keyUsage: ['digitalSignature', 'keyCertSign'] }), leaf({ keyUsage: ['digitalSignature', 'cRLSign'] })],
  'X-19': [leaf({ extKeyUsage: [] })],
  'X-20': [leaf({ extKeyUsage: ['serverAuth'] }), leaf({ extKeyUsage: ['clientAuth'] })],
  'X-21': [leaf({ notBefore: ago(7200) * 1000, notAfter: ago(3600) * 1000 })],

  'J-1': [accepts((_header, token) => token.startsWith('{') && !token.includes('"header"'))],
  'J-2': [{ jwt: { text: (token) => `${token}.x` } }, accepts((_header, token) => token.includes('"header"'))],
  'J-3': [accepts((_header, token) => token.split('.').length === 5)],
  'J-4': [jwtHeader({ jku: 'https://keys.example' }), jwtHeader({ crit: ['exp'] }), accepts(({ jwk }) => jwk !== undefined)],
  'J-5': [
    jwtHeader({ alg: 'HS256' }),
    ...['none', 'HS256', 'EdDSA'].map((name) => accepts(({ alg }, token) => alg === name && token.split('.').length === 3)),
  ],
  'J-7': [jwtHeader({ typ: 'at+jwt' })],
  'J-8': [jwtClaims({ sub: 'alice' }), jwtClaims({ sub: undefined })],
  'J-9': [jwtClaims({ aud: undefined }), jwtClaims({ aud: [] }), { ignoresAudience: true }],
  'J-10': [jwtClaims({ aud: ['conformance', 'everybody'] })],
  'J-11': [jwtClaims({ exp: undefined })],
  'J-12': [jwtClaims({ exp: '2099-01-01T00:00:00Z' }), jwtClaims({ exp: ago(60) }), jwtClaims({ aud: ['conformance', 7] })],
  'J-16': [{ keys: { jwt: (keys) => keys.map((key) => ({ ...key, kid: undefined })) } }],
  'J-18': [{ refuses: (_token, times) => times % 2 === 0 }],

  'W-1': [witHeader({ kid: undefined }), witHeader({ kid: 7 })],
  'W-2': [witHeader({ typ: 'JWT' })],
  'W-3': [witHeader({ alg: 'EdDSA' }), witHeader({ alg: undefined })],
  'W-4': [witHeader({ jku: 'https://keys.example' })],
  'W-5': [witClaims({ sub: 'alice' })],
  'W-6': [witClaims({ cnf: undefined }), witClaims({ cnf: { kid: 'wit-1' } })],
  'W-7': [witClaims({ cnf: { jwk: { kty: 'EC' } } })],
  'W-8': [witClaims({ jti: 'the-only-one' })],
  'W-9': [witClaims({ exp: undefined }), witClaims({ exp: ago(60) })],
  'W-10': [witClaims({ nbf: ago(-3600) })],
  'W-12': [witClaims({ iss: 'https://issuer.example' })],
  'W-13': [witClaims({ aud: ['db'] })],
  'W-19': [{ keys: { wit: (keys) => keys.map((key) => ({ ...key, kid: 'jwt-1' })) } }],
  'W-23': [accepts(({ typ }) => typ === 'wit+jwt')],

  'EP-2': [{ contentType: 'application/json' }],
  'EP-5': [
    { admits: () => true },
    { admits: (header) => header?.toLowerCase() === 'true' },
    { admits: (header) => header?.split(', ').every((value) => value === 'true') === true },
  ],
  'EP-14': [{ methods: { [methods.x509]: refused(16) } }, { methods: { [methods.x509]: refused(5) } }],
  'EP-15': [{ unknownMethod: refused(13) }],
  'EP-16': [{ reflection: ['FetchSecrets'] }],
  'EP-18': [{ reflection: false }],

  'API-1': [
    { methods: { [methods.jwtBundles]: refused(status.unimplemented) } },
    { methods: { [methods.validate]: refused(status.unimplemented) } },
  ],
  'API-2': [
    { answer: { x509: second((svid) => ({ ...svid, 9: 'new' })) } },
    { answer: { jwt: second((svid) => ({ ...svid, 4: 'new' })) } },
  ],
  'API-4': [{ tellsTheRest: true }],
  'API-5': [{ methods: { [methods.jwtBundles]: 'silent' } }],
  'API-9': [{ lacksArguments: refused(13) }],
  'API-12': [
    { answer: { x509: second((svid) => ({ ...svid, 4: '' })) } },
    { answer: { x509: second((svid) => ({ ...svid, 3: '' })) } },
    { answer: { x509: () => [] } },
  ],
  'API-13': [
    { answer: { x509: (svids) => svids.map((svid) => ({ ...svid, 3: svids[1]![3]! })) } },
    { answer: { x509: second((svid) => ({ ...svid, 3: randomBytes(64) })) } },
    { answer: { x509: second((svid) => ({ ...svid, 2: '-----BEGIN CERTIFICATE-----' })) } },
  ],
  'API-14': [{ answer: { x509: (svids) => svids.map((svid) => ({ ...svid, 5: 'internal' })) } }],
  'API-17': [
    { bundles: { x509: () => new Map() } },
    { bundles: { x509: (bundles) => new Map([...bundles, ['spiffe://other.example', randomBytes(9)]]) } },
  ],
  'API-18': [
    { answer: { jwt: (svids) => svids.slice(0, 1) } },
    { answer: { jwt: (svids) => svids.map((svid) => ({ ...svid, 3: 'internal' })) } },
    { reads: (asked) => (asked.includes('nobody-holds-this') ? refused(status.invalidArgument) : asked) },
    { answer: { jwt: () => [] } },
  ],
  'API-19': [
    { bundles: { jwt: (bundles) => new Map([['spiffe://other.example', [...bundles.values()][0]!]]) } },
    { bundles: { jwt: () => new Map([['spiffe://example.org', Buffer.from('no JSON')]]) } },
    { keys: { jwt: (keys) => [...keys, { ...keys[0]!, kid: 'other', use: 'x509-svid' }] } },
  ],
  'API-20': [
    { withoutClaims: ['exp'] },
    accepts((_header, token) => token === 'x.y.z'),
    accepts((_header, _token, { sub }) => String(sub).includes('nobody-holds-this')),
    { refuses: () => true },
  ],
  'API-22': [accepts(({ alg }, _token, { sub }) => alg === 'ES256' && sub === stranger.named)],
  'API-23': [{ methods: { [methods.witBundles]: refused(status.unimplemented) } }, { methods: { [methods.wit]: refused(13) } }],
  'API-24': [
    { answer: { wit: (svids) => svids.slice(0, 1) } },
    { answer: { wit: (svids) => svids.map((svid) => ({ ...svid, 3: svids[0]![3]! })) } },
    { answer: { wit: second((svid) => ({ ...svid, 3: 'no key' })) } },
  ],
  'API-25': [{ bundles: { wit: () => new Map() } }, { keys: { wit: (keys) => [...keys, ...keys] } }],
  'API-26': [{ answer: { x509: (svids, asked) => (asked % 2 === 0 ? svids : svids.toReversed()) } }],
  'API-27': [{ answer: { x509: second((svid) => ({ ...svid, 5: 'h'.repeat(1025) })) } }],

  'B-7': [{ keys: { jwt: (keys) => keys.map((key) => ({ ...key, owner: 'us' })) } }],
}

function partOf(token: string, index: number): Json {
  try {
    return JSON.parse(Buffer.from(token.split('.')[index] ?? '', 'base64url').toString()) as Json
  } catch {
    return {}
  }
}
