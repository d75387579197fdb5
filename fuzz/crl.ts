import { base64, sameBytes } from '../src/kernel/bytes.ts'
import { createRevocationList, parseRevocationList, revocationListSignedBy } from '../src/x509/revocation-list.ts'
import { TestCa } from '../test/support/test-ca.ts'
import { promise, type Target } from './target.ts'

const at = 1_767_225_600_000
const nextUpdate = at + 86_400_000
const ca = await TestCa.create({ at })

export const crl: Target = {
  name: 'crl',
  about: 'certificate revocation lists, and whose they are',
  words: [
    '\x30\x80\x00\x00',
    '\x02\x01\x01',
    '\x30\x00',
    '\xa0\x00',
    '\x06\x03\x55\x1d\x14',
    '\x06\x03\x55\x1d\x1b\x01\x01\xff',
    '\x17\x0d',
  ],
  async seeds() {
    const revoked = [
      { serial: '01', at },
      { serial: 'ff00', at: at + 1000 },
      // The first second that GeneralizedTime has to be used for.
      { serial: '7f'.repeat(20), at: Date.UTC(2050, 0, 1) },
    ]
    const made = await Promise.all(
      [[], revoked.slice(0, 1), revoked].map((entries, index) =>
        createRevocationList(ca.signer, {
          issuer: ca.certificate,
          number: 1n << BigInt(64 * index),
          thisUpdate: at,
          nextUpdate,
          revoked: entries,
        }),
      ),
    )
    for (const list of made) issued.add(base64(parseRevocationList(list).tbs))
    return made
  },
  feed(input) {
    const list = parseRevocationList(input)
    promise(sameBytes(list.raw, input), 'a list is all of its bytes')
    promise(list.thisUpdate <= list.nextUpdate, 'a list does not end before it begins')
    for (const [serial, when] of list.revoked)
      promise(/^(?:[0-9a-f]{2})+$/.test(serial) && Number.isFinite(when), 'an entry has a serial number and a moment')
    if (revocationListSignedBy(list, ca.certificate)) promise(issued.has(base64(list.tbs)), 'nobody else signs a list')
  },
}

/** What the CA of the seeds signed. */
const issued = new Set<string>()
