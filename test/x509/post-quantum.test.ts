import { createPrivateKey, generateKeyPairSync, sign } from 'node:crypto'
import { beforeAll, describe, expect, test } from 'vitest'
import { type Certificate, parseCertificate } from '../../src/x509/certificate.ts'
import { buildChain } from '../../src/x509/chain.ts'
import { bitString, encodeDer, objectIdentifier, sequence } from '../../src/x509/der-writer.ts'
import { oid } from '../../src/x509/oid.ts'
import { TestCa } from '../support/test-ca.ts'

const at = 1_767_225_600_000
const pair = generateKeyPairSync('ml-dsa-65')
let root: Certificate
let leaf: Certificate

beforeAll(async () => {
  const spki = new Uint8Array(pair.publicKey.export({ type: 'spki', format: 'der' }))
  const helper = await TestCa.create({ at })
  const authority = await helper.intermediate({ spki, notAfter: at + 3_600_000 })
  root = authority.certificate
  leaf = signedAgain((await authorityOf(helper, root).leaf()).certificate)
})

/** Issues under the name of another certificate; its signatures are replaced below. */
const authorityOf = (ca: TestCa, certificate: Certificate) => ca.withCertificate(certificate)

/** The same certificate with another algorithm and a signature of the ML-DSA key (RFC 9881). */
function signedAgain(certificate: Certificate): Certificate {
  const algorithm = encodeDer(sequence(objectIdentifier(oid.mlDsa65)))
  const content = Buffer.from(certificate.tbs).subarray(4)
  const place = content.indexOf(Buffer.from(certificate.signatureAlgorithm.raw))
  const rest = content.subarray(place + certificate.signatureAlgorithm.raw.length)
  const tbs = encodeDer(sequence(content.subarray(0, place), algorithm, rest))
  const signature = sign(null, tbs, createPrivateKey(pair.privateKey.export({ type: 'pkcs8', format: 'pem' })))
  return parseCertificate(encodeDer(sequence(tbs, algorithm, bitString(signature))))
}

describe('signatures of ML-DSA-65', () => {
  const chain = (subject: Certificate, postQuantum?: boolean) =>
    buildChain({ leaf: subject, intermediates: [], roots: [root], at, postQuantum })

  test('are refused unless the caller asks for them', () => {
    expect(() => chain(leaf)).toThrow(expect.objectContaining({ reason: 'chain.no-path' }))
    expect(() => chain(leaf, false)).toThrow(expect.objectContaining({ reason: 'chain.no-path' }))
  })

  test('are refused when a bit of what is signed changes', () => {
    const bytes = Uint8Array.from(leaf.raw)
    const place = Buffer.from(bytes).indexOf('workload')
    bytes[place] = 0x57
    expect(() => chain(parseCertificate(bytes), true)).toThrow(expect.objectContaining({ reason: 'chain.no-path' }))
  })

  test('are verified where the caller asks for them', () => {
    expect(chain(leaf, true)).toEqual([leaf, root])
  })
})
