import { spawnSync } from 'node:child_process'
import { beforeAll, describe, expect, test } from 'vitest'
import { hours } from '../../src/kernel/duration.ts'
import { type Der, encodeDer, sequence, tagged, time, tinyInteger, unsignedInteger, bitString } from '../../src/x509/der-writer.ts'
import { writeExtension } from '../../src/x509/extension.ts'
import { keyTypes } from '../../src/x509/key-type.ts'
import { oid } from '../../src/x509/oid.ts'
import { formatPem } from '../../src/x509/pem.ts'
import { createRevocationList, parseRevocationList, revocationListSignedBy } from '../../src/x509/revocation-list.ts'
import { TestCa, truncated, withTrailingByte } from '../support/test-ca.ts'

const at = 1_767_225_600_000
const revoked = [
  { serial: '01', at },
  { serial: 'ff00', at: at + 1000 },
]
let ca: TestCa
let der: Uint8Array

beforeAll(async () => {
  ca = await TestCa.create({ at })
  der = await list()
})

const list = (change: object = {}) =>
  createRevocationList(ca.signer, { issuer: ca.certificate, number: 300n, thisUpdate: at, nextUpdate: at + hours(1), revoked, ...change })

/** A list with a signature that is none, for readers that never come so far. */
function forged({ version = tinyInteger(1), entries = [], until = at + hours(1), extensions = [number] }: Partial<Forged>): Uint8Array {
  const algorithm = keyTypes['ec-p256'].signatureAlgorithm
  const revokedPart = entries.length > 0 ? [sequence(...entries)] : []
  const tbs = sequence(
    version,
    algorithm,
    ca.certificate.subject.raw,
    time(at),
    time(until),
    ...revokedPart,
    tagged(0, sequence(...extensions)),
  )
  return encodeDer(sequence(tbs, algorithm, bitString(Uint8Array.of(1))))
}
interface Forged {
  readonly version: Der
  readonly entries: readonly Der[]
  readonly until: number
  readonly extensions: readonly Der[]
}
const number = writeExtension(oid.cRLNumber, false, tinyInteger(1))
const entry = (serial: number, ...more: Der[]) => sequence(unsignedInteger(Uint8Array.of(serial >> 8, serial & 0xff)), time(at), ...more)
const partial = writeExtension('2.5.29.27', true, tinyInteger(1))

describe('revocation lists', () => {
  const refused: readonly [what: string, bytes: () => Uint8Array, reason: string][] = [
    ['version 1', () => forged({ version: tinyInteger(0) }), 'crl.version'],
    ['no number', () => forged({ extensions: [writeExtension('1.2.3', false, tinyInteger(1))] }), 'crl.no-number'],
    ['a list that is only what changed', () => forged({ extensions: [number, partial] }), 'crl.unknown-critical'],
    ['an entry of another issuer', () => forged({ entries: [entry(1, sequence(partial))] }), 'crl.unknown-critical'],
    ['a certificate named twice', () => forged({ entries: [entry(1), entry(1)] }), 'crl.duplicate-entry'],
    ['an end before the beginning', () => forged({ until: at - 1000 }), 'crl.times'],
    [
      'R-28 more than 20,000 entries',
      () => forged({ entries: Array.from({ length: 20_001 }, (_, index) => entry(index + 1)) }),
      'crl.too-many-entries',
    ],
    ['R-28 more than a megabyte', () => new Uint8Array((1 << 20) + 1), 'der.too-long'],
    ['a trailing byte', () => withTrailingByte(der), 'der.trailing-bytes'],
    ['half a list', () => truncated(der, der.length / 2), 'der.truncated'],
    ['nothing', () => new Uint8Array(), 'der.truncated'],
  ]
  test.each(refused)('%s is refused', (_, bytes, reason) => {
    expect(() => parseRevocationList(bytes())).toThrow(expect.objectContaining({ reason }))
  })

  test('a list is its issuer’s only if key and name are its own, and the key may sign lists', async () => {
    const read = parseRevocationList(der)
    const stranger = await TestCa.create({ at })
    const mute = await ca.leaf({ subject: ca.certificate.subject.attributes, spki: ca.signer.publicKey, keyUsage: ['keyCertSign'], ca: {} })
    const renamed = await ca.intermediate({ spki: ca.signer.publicKey, name: 'another' })
    expect(revocationListSignedBy(read, ca.certificate)).toBe(true)
    for (const other of [stranger, mute, renamed]) expect(revocationListSignedBy(read, other.certificate)).toBe(false)
  })

  test('what is written is read back, an empty list too', async () => {
    expect(parseRevocationList(der)).toMatchObject({ number: '012c', thisUpdate: at, nextUpdate: at + hours(1) })
    expect([...parseRevocationList(der).revoked]).toEqual(revoked.map(({ serial, at: when }) => [serial, when]))
    expect(parseRevocationList(await list({ revoked: [] })).revoked.size).toBe(0)
  })
})

const noOpenssl = spawnSync('openssl', ['version']).status === 0 ? '' : ' (skipped: needs the program `openssl`)'
test.skipIf(noOpenssl !== '')(`openssl reads our list as we do${noOpenssl}`, () => {
  const { stdout, status } = spawnSync('openssl', ['crl', '-noout', '-text'], {
    input: formatPem('X509 CRL', der),
    encoding: 'utf8',
    timeout: 20_000,
  })
  expect(status).toBe(0)
  for (const told of ['Version 2', 'X509v3 CRL Number', '300', 'Serial Number: 01', 'Serial Number: FF00']) expect(stdout).toContain(told)
})
