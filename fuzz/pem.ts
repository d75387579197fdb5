import { sameBytes } from '../src/kernel/bytes.ts'
import { formatPem, parsePem } from '../src/x509/pem.ts'
import { bytes, promise, type Target, text } from './target.ts'

export const pem: Target = {
  name: 'pem',
  about: 'PEM texts',
  words: ['-----BEGIN CERTIFICATE-----\n', '\n-----END CERTIFICATE-----\n', '-----', '\r\n', '=', 'Proc-Type: 4,ENCRYPTED\n', '\n\n'],
  async seeds() {
    const block = formatPem(
      'CERTIFICATE',
      Uint8Array.from({ length: 200 }, (_, index) => index),
    )
    return [block, `hello\n${block}between\n${block}`, block.replaceAll('\n', '\r\n'), formatPem('PRIVATE KEY', Uint8Array.of(1))].map(
      bytes,
    )
  },
  feed(input) {
    for (const { label, der } of parsePem(text(input))) {
      const again = parsePem(formatPem(label, der))
      promise(again.length === 1 && again[0]!.label === label && sameBytes(again[0]!.der, der), 'a block is read as it is written')
    }
  },
}
