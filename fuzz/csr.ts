import { generateKeyPairSync } from 'node:crypto'
import { sameBytes } from '../src/kernel/bytes.ts'
import { createCertificateRequest, parseCertificateRequest, provenSync } from '../src/x509/certificate-request.ts'
import { oid } from '../src/x509/oid.ts'
import { signerOf } from '../src/x509/signature.ts'
import { promise, type Target } from './target.ts'

export const csr: Target = {
  name: 'csr',
  about: 'certificate requests, and the proof of their key',
  words: ['\x30\x80', '\x02\x01\x00', '\xa0\x00', '\x31\x00', '\x03\x02\x00\x00'],
  async seeds() {
    const signers = [
      generateKeyPairSync('ec', { namedCurve: 'P-256' }),
      generateKeyPairSync('ec', { namedCurve: 'P-384' }),
      generateKeyPairSync('rsa', { modulusLength: 2048 }),
    ].map(({ privateKey }) => signerOf(privateKey))
    const wishes = { uris: ['spiffe://example.org/web'], dnsNames: ['web.example.org'] }
    const made = await Promise.all([
      ...signers.map((signer) => createCertificateRequest({ signer, ...wishes })),
      createCertificateRequest({ signer: signers[0]!, subject: [{ oid: oid.commonName, value: 'web' }] }),
    ])
    for (const request of made) proven.add(Buffer.from(parseCertificateRequest(request).signedPart).toString('base64'))
    return made
  },
  feed(input) {
    const request = parseCertificateRequest(input)
    promise(sameBytes(request.raw, input), 'a request is all of its bytes')
    const { spki } = provenSync(request)
    promise(sameBytes(spki, request.spki), 'the key that is proven is the one of the request')
    promise(proven.has(Buffer.from(request.signedPart).toString('base64')), 'nobody else signs a request')
  },
}

/** What the keys of the seeds signed. */
const proven = new Set<string>()
