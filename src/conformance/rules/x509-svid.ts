/** X509-SVID: spiffe:standards/X509-SVID.md. */
import { type Certificate, parseCertificate, signedBy } from '../../x509/certificate.ts'
import { oid } from '../../x509/oid.ts'
import { type Json, type Signing, trustDomainIn } from '../documents.ts'
import { brokenPath, entries, type Judge, of } from '../judging.ts'
import { unseen } from '../reasons.ts'
import { finding, type Finding, type Rule, section, told } from '../rule.ts'

/** What breaks a path and is another rule's business. */
const elsewhere: ReadonlySet<string> = new Set(['chain.no-path', 'chain.not-a-ca', 'chain.may-not-sign'])

export const x509SvidRules: readonly Rule[] = section({
  'X-1': {
    level: 'must',
    says: 'a certificate has exactly one URI name, hence one SPIFFE ID',
    judges: {
      leaf: ({ subjectAltName }) =>
        subjectAltName?.uris.length === 1 ? undefined : finding('one URI name', `${subjectAltName?.uris.length ?? 0}`),
    },
  },
  'X-2': { level: 'must', says: 'a validator refuses a certificate with several URI names', unseen: unseen.validators },
  'X-3': { level: 'may', says: 'names of other types may stand beside the SPIFFE ID', unseen: unseen.permission },
  'X-4': {
    level: 'must',
    says: 'the SPIFFE ID of a leaf has a path',
    judges: { leaf: withId((id) => (/^\w+:\/\/[^/]*$/.test(id) ? finding('an ID with a path', id) : undefined)) },
  },
  'X-5': {
    level: 'must',
    says: 'the names are critical where there is no subject',
    judges: {
      leaf: ({ subject, subjectAltName }) =>
        subject.attributes.length === 0 && subjectAltName && !subjectAltName.critical
          ? finding('critical alternative names', 'an empty subject and alternative names that are not critical')
          : undefined,
    },
  },
  'X-6': {
    level: 'should',
    says: 'a certificate that signs SVIDs is an SVID itself',
    judges: {
      signing: direct(({ certificate }) =>
        spiffeIds(certificate).length === 1
          ? undefined
          : finding('one SPIFFE ID', `${spiffeIds(certificate).length} in the certificate that signed the leaf`),
      ),
    },
  },
  'X-7': {
    level: 'must',
    says: 'the ID of a signing certificate has no path',
    judges: {
      signing: direct(({ certificate }) =>
        of(spiffeIds(certificate), (id) => (/^spiffe:\/\/[^/]+$/.test(id) ? undefined : finding('an ID without a path', id))),
      ),
    },
  },
  'X-8': {
    level: 'should',
    says: 'a signing certificate is in the trust domain of its leaves',
    judges: {
      signing: direct(({ certificate, trustDomain }) =>
        of(spiffeIds(certificate), (id) =>
          trustDomainIn(id) === trustDomain ? undefined : finding(`the trust domain \`${trustDomain}\``, id),
        ),
      ),
    },
  },
  'X-9': { level: 'may', says: 'a signing certificate may sign further signing certificates', unseen: unseen.permission },
  'X-10': {
    level: 'must',
    says: 'nobody authenticates with a signing certificate',
    unseen: 'what others do with a signing certificate is not seen here; X-12 and X-18 see that none is handed out as a leaf',
  },
  'X-11': {
    level: 'must',
    says: 'a signing certificate is a CA',
    judges: {
      signing: ({ certificate }) =>
        certificate.basicConstraints?.ca ? undefined : finding('cA true', 'a certificate that signed another, and is no CA'),
    },
  },
  'X-12': {
    level: 'must',
    says: 'a leaf is no CA',
    judges: { leaf: ({ basicConstraints }) => (basicConstraints?.ca ? finding('cA false', 'cA true') : undefined) },
  },
  'X-13': { level: 'may', says: 'a signing certificate may limit the length of paths below it', unseen: unseen.permission },
  'X-14': { level: 'may', says: 'a signing certificate may constrain the names below it', unseen: unseen.permission },
  'X-15': {
    level: 'must',
    says: 'every SVID has a key usage, and it is critical',
    judges: {
      leaf: criticalKeyUsage,
      signing: ({ certificate }) => (spiffeIds(certificate).length > 0 ? criticalKeyUsage(certificate) : undefined),
    },
  },
  'X-16': {
    level: 'must',
    says: 'a signing certificate may sign certificates',
    judges: {
      signing: ({ certificate: { keyUsage } }) =>
        keyUsage && !keyUsage.keyCertSign
          ? finding('keyCertSign', 'a key usage without it, in a certificate that signed another')
          : undefined,
    },
  },
  'X-17': {
    level: 'must',
    says: 'a leaf may make digital signatures',
    judges: {
      leaf: ({ keyUsage }) => (keyUsage && !keyUsage.digitalSignature ? finding('digitalSignature', 'a key usage without it') : undefined),
    },
  },
  'X-18': {
    level: 'must',
    says: 'a leaf may sign neither certificates nor revocation lists',
    judges: {
      leaf: ({ keyUsage }) =>
        keyUsage?.keyCertSign || keyUsage?.cRLSign
          ? finding('neither keyCertSign nor cRLSign', keyUsage.keyCertSign ? 'keyCertSign' : 'cRLSign')
          : undefined,
    },
  },
  'X-19': {
    level: 'should',
    says: 'a leaf has an extended key usage',
    judges: { leaf: ({ extKeyUsage }) => (extKeyUsage ? undefined : finding('an extended key usage', 'none')) },
  },
  'X-20': {
    level: 'must',
    says: 'an extended key usage is for servers and for clients',
    judges: {
      leaf: ({ extKeyUsage }) =>
        !extKeyUsage || [oid.serverAuth, oid.clientAuth].every((purpose) => extKeyUsage.purposes.includes(purpose))
          ? undefined
          : finding('serverAuth and clientAuth', extKeyUsage.purposes.join(', ')),
    },
  },
  'X-33': { level: 'may', says: 'a signing certificate may have an extended key usage', unseen: unseen.permission },
  'X-21': {
    level: 'must',
    says: 'there is a path to an authority that RFC 5280 accepts',
    judges: { chain: (chain) => brokenPath(chain, (reason) => !elsewhere.has(reason), 'a path that is valid now') },
  },
  'X-22': { level: 'must', says: 'a validator refuses a leaf that is a CA', unseen: unseen.validators },
  'X-23': { level: 'must', says: 'a validator refuses a leaf that may sign certificates or revocation lists', unseen: unseen.validators },
  'X-24': { level: 'must', says: 'a validator refuses a leaf whose URI has another scheme', unseen: unseen.validators },
  'X-25': { level: 'must', says: 'a validator refuses a leaf whose ID has no path', unseen: unseen.validators },
  'X-26': {
    level: 'must',
    says: 'the key of an X.509 authority has the use `x509-svid`',
    judges: {
      bundle: entries(
        (key) => 'x5c' in key,
        ({ use }) => (use === 'x509-svid' ? undefined : finding('`use` is `x509-svid` where there is a certificate', `\`${told(use)}\``)),
      ),
    },
    unseen: unseen.documents,
  },
  'X-27': {
    level: 'must',
    says: 'the key of an X.509 authority has no key id',
    judges: { bundle: entries(forX509, (key) => ('kid' in key ? finding('no `kid`', `\`${told(key['kid'])}\``) : undefined)) },
    unseen: unseen.documents,
  },
  'X-28': {
    level: 'must',
    says: 'the key of an X.509 authority has one certificate, base64 of its DER',
    judges: { bundle: entries(forX509, (key) => (certificateIn(key) ? undefined : finding('one certificate in `x5c`', tellX5c(key)))) },
    unseen: unseen.documents,
  },
  'X-29': {
    level: 'should',
    says: 'the certificate of an X.509 authority is self-signed',
    judges: {
      bundle: entries(forX509, (key) => {
        const certificate = certificateIn(key)
        return !certificate || signedBy(certificate, certificate)
          ? undefined
          : finding('a self-signed certificate', `one that \`${certificate.issuer.text}\` signed`)
      }),
    },
    unseen: unseen.documents,
  },
  'X-30': { level: 'must', says: 'a consumer passes over an X.509 authority without a certificate', unseen: unseen.consumers },
  'X-31': { level: 'must', says: 'a consumer reads the first certificate of an X.509 authority and no other', unseen: unseen.consumers },
  'X-32': { level: 'derived', says: 'a bundle without X.509 authorities validates no X509-SVID', unseen: unseen.consumers },
})

/** Judges the first URI name, if there is one. */
function withId(judge: Judge<string>): Judge<Certificate> {
  return ({ subjectAltName }) => of(subjectAltName?.uris.slice(0, 1) ?? [], judge)
}

/** Judges those alone that signed a leaf. */
function direct(judge: Judge<Signing>): Judge<Signing> {
  return (signing) => (signing.direct ? judge(signing) : undefined)
}

function criticalKeyUsage({ keyUsage }: Certificate): Finding | undefined {
  return keyUsage?.critical ? undefined : finding('a critical key usage', keyUsage ? 'one that is not critical' : 'none')
}

function forX509(key: Json): boolean {
  return key['use'] === 'x509-svid'
}

const spiffeIds = ({ subjectAltName }: Certificate): string[] => (subjectAltName?.uris ?? []).filter((uri) => /^spiffe:/i.test(uri))

function certificateIn(key: Json): Certificate | undefined {
  const chain = key['x5c']
  if (!Array.isArray(chain) || chain.length !== 1 || typeof chain[0] !== 'string') return undefined
  const der = Buffer.from(chain[0], 'base64')
  if (der.toString('base64') !== chain[0]) return undefined
  try {
    return parseCertificate(der)
  } catch {
    return undefined
  }
}

function tellX5c(key: Json): string {
  const chain = key['x5c']
  if (chain === undefined) return 'none'
  if (!Array.isArray(chain)) return 'no list'
  return chain.length === 1 ? 'something that is not one' : `${chain.length}`
}
