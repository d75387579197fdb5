import { sameBytes } from '../src/kernel/bytes.ts'
import { collect } from '../src/spiffe/flaws.ts'
import { signingCertificateFlaws, x509SvidFlaws } from '../src/spiffe/x509-svid.ts'
import { parseCertificate } from '../src/x509/certificate.ts'
import { TestCa } from '../test/support/test-ca.ts'
import { promise, type Target } from './target.ts'

export const der: Target = {
  name: 'der',
  about: 'certificates, DER',
  words: ['\x30\x80\x00\x00', '\x02\x01\x00', '\x01\x01\xff', '\x05\x00', '\x30\x00', '\x06\x03\x55\x1d\x11'],
  async seeds() {
    const ca = await TestCa.create({ at })
    const constrained = await ca.intermediate({
      nameConstraints: { critical: true, permittedUris: ['example.org'], excludedDns: ['evil.test'] },
    })
    const leaf = await ca.leaf({ dnsNames: ['web.example.org'], extKeyUsage: ['serverAuth', 'clientAuth'] })
    const rsa = await TestCa.create({ at, keyType: 'rsa-2048' })
    return [ca, constrained, leaf, rsa].map(({ certificate }) => certificate.raw)
  },
  feed(input) {
    const certificate = parseCertificate(input)
    promise(sameBytes(certificate.raw, input), 'a certificate is all of its bytes')
    promise(Number.isFinite(certificate.notBefore) && Number.isFinite(certificate.notAfter), 'a certificate has times')
    collect(x509SvidFlaws(certificate))
    collect(signingCertificateFlaws(certificate))
  },
}

const at = 1_767_225_600_000
