/** Certificates and requests, told and judged. */
import { hex } from '../../kernel/bytes.ts'
import { Failure } from '../../kernel/failure.ts'
import { bundleSet } from '../../spiffe/bundle-set.ts'
import type { TrustBundle } from '../../spiffe/bundle.ts'
import { verifyX509Svid } from '../../spiffe/x509-svid.ts'
import { type Certificate, fingerprint, signedBy } from '../../x509/certificate.ts'
import { type CertificateRequest, proven } from '../../x509/certificate-request.ts'
import { type KeyUsage, keyUsageNames } from '../../x509/extension.ts'
import { readPublicKeyInfo } from '../../x509/key-type.ts'
import { oid } from '../../x509/oid.ts'
import { type Signing, signingsOf, trustDomainIn } from '../documents.ts'
import { finding } from '../rule.ts'
import { trustBundleFor } from './bundles.ts'
import {
  type Fact,
  factsOf,
  type Flaw,
  flawAgainst,
  flawsOf,
  type Inspected,
  type Looking,
  refusalFlaw,
  tellInstant,
} from './inspection.ts'

/**
 * A chain as a peer presents it, or the authorities of a bundle: what the first certificate is says which.
 * With a trust bundle, the path from the leaf to it is verified.
 */
export function inspectCertificates(certificates: readonly Certificate[], looking: Looking): Inspected[] {
  const [first, ...others] = certificates
  if (!first) return []
  if (isAuthority(first)) return certificates.map((one) => authority(one, signingOf(one), looking))
  const trustDomain = trustDomainIn(first.subjectAltName?.uris[0] ?? '')
  const bundle = looking.trustBundle === undefined ? undefined : trustBundleFor(trustDomain, looking.trustBundle)
  const roots = bundle?.x509Authorities.map(({ certificate }) => certificate) ?? []
  const signings = signingsOf({ leaf: first, intermediates: others, roots, at: looking.at })
  const above = others.map((one) => authority(one, signings.find(({ certificate }) => certificate === one) ?? signingOf(one), looking))
  return [leafOf(first, others, bundle, looking), ...above]
}

/** A certificate of an authority, as a bundle document holds it. */
export const inspectAuthority = (certificate: Certificate, looking: Looking): Inspected =>
  authority(certificate, signingOf(certificate), looking)

/** What is asked for, and whether whoever asks holds the key. Nothing of it but the key is ever believed. */
export async function inspectRequest(request: CertificateRequest): Promise<Inspected> {
  const { requestedUris: uris, requestedDnsNames } = request
  const flaws = uris.flatMap((uri) => flawsOf('id', uri))
  if (uris.length > 1) flaws.push(flawAgainst('X-1', finding('at most one URI name', `${uris.length}`)))
  try {
    await proven(request)
  } catch (error) {
    flaws.push(weakProof(error))
  }
  return {
    kind: 'certificate-request',
    title: `a certificate request${uris[0] === undefined ? '' : ` for ${uris[0]}`}`,
    facts: factsOf([
      ['subject', request.subject.text],
      ['uri names', uris.join(', ')],
      ['dns names', requestedDnsNames.join(', ')],
      ['key', tellKey(request.spki)],
    ]),
    flaws,
  }
}

function weakProof(refusal: unknown): Flaw {
  const { expected, found } = finding('a strong key that signed the request', Failure.from(refusal).message)
  return { rule: 'R-4', level: 'derived', says: 'a request is signed by the key that it asks a certificate for', expected, found }
}

function leafOf(leaf: Certificate, intermediates: readonly Certificate[], bundle: TrustBundle | undefined, looking: Looking): Inspected {
  const [id] = leaf.subjectAltName?.uris ?? []
  const flaws = [...flawsOf('leaf', leaf), ...(id === undefined ? [] : flawsOf('id', id))]
  let verified: string | undefined
  if (bundle) {
    const roots = bundle.x509Authorities.map(({ certificate }) => certificate)
    if (roots.length > 0) flaws.push(...flawsOf('chain', { leaf, intermediates, roots, at: looking.at }))
    try {
      const { path } = verifyX509Svid([leaf, ...intermediates], bundleSet([bundle]), looking.at)
      verified = `by ${path.length - 1} ${path.length === 2 ? 'authority' : 'certificates'} up to ${tellName(path.at(-1)!)}`
    } catch (error) {
      flaws.push(...refusalFlaw(error, flaws))
    }
  } else flaws.push(...outsideValidity(leaf, looking))
  return {
    kind: 'x509-svid',
    title: `an X509-SVID${id === undefined ? '' : ` of ${id}`}`,
    facts: [...factsOf([['spiffe id', id]]), ...certificateFacts(leaf), ...factsOf([['verified', verified]])],
    flaws,
  }
}

function authority(certificate: Certificate, signing: Signing, looking: Looking): Inspected {
  const [id] = certificate.subjectAltName?.uris ?? []
  const isSigner = signing.direct || id !== undefined
  const flaws = [
    ...flawsOf('signing', { ...signing, direct: isSigner }),
    ...(id === undefined ? [] : flawsOf('id', id)),
    ...outsideValidity(certificate, looking),
  ]
  return {
    kind: 'signing-certificate',
    title: `a signing certificate${id === undefined ? '' : ` of ${id}`}`,
    facts: [...factsOf([['spiffe id', id]]), ...certificateFacts(certificate)],
    flaws,
  }
}

/** By itself, a certificate says that it is in its own trust domain, and not whom it signed. */
function signingOf(certificate: Certificate): Signing {
  return { certificate, trustDomain: trustDomainIn(certificate.subjectAltName?.uris[0] ?? ''), direct: false }
}

function isAuthority({ basicConstraints, keyUsage, subjectAltName }: Certificate): boolean {
  const [id] = subjectAltName?.uris ?? []
  return (basicConstraints?.ca ?? false) && (id === undefined || /^spiffe:\/\/[^/]*$/.test(id) || (keyUsage?.keyCertSign ?? false))
}

function outsideValidity({ notBefore, notAfter }: Certificate, { at }: Looking): Flaw[] {
  if (at >= notBefore && at < notAfter + 1000) return []
  const found = at < notBefore ? `one that is valid from ${tellInstant(notBefore)} on` : `one that expired at ${tellInstant(notAfter)}`
  return [flawAgainst('X-21', finding(`a certificate that is valid at ${tellInstant(at)}`, found))]
}

function certificateFacts(certificate: Certificate): Fact[] {
  const { subject, issuer, serial, notBefore, notAfter, spki, subjectAltName, basicConstraints, keyUsage, extKeyUsage, subjectKeyId } =
    certificate
  return factsOf([
    ['subject', subject.text],
    ['issuer', signedBy(certificate, certificate) ? 'itself' : issuer.text],
    ['serial', serial],
    ['valid from', tellInstant(notBefore)],
    ['valid until', tellInstant(notAfter)],
    ['other uri names', subjectAltName?.uris.slice(1).join(', ')],
    ['dns names', subjectAltName?.dnsNames.join(', ')],
    ['key', tellKey(spki)],
    ['key usage', keyUsage && tellUsage(keyUsage)],
    ['extended key usage', extKeyUsage?.purposes.map((purpose) => purposes.get(purpose) ?? purpose).join(', ')],
    ['ca', basicConstraints?.ca ? tellPathLength(basicConstraints.pathLength) : 'no'],
    ['subject key id', subjectKeyId && hex(subjectKeyId)],
    ['sha-256', fingerprint(certificate)],
  ])
}

const tellPathLength = (length: number | undefined): string => (length === undefined ? 'yes' : `yes, with ${length} CAs below it`)

function tellUsage(usage: KeyUsage): string {
  return `${keyUsageNames.filter((name) => usage[name]).join(', ')}${usage.critical ? ' (critical)' : ''}`
}

const tellName = ({ subject, subjectAltName, serial }: Certificate): string =>
  subjectAltName?.uris[0] ?? (subject.text === '' ? `serial ${serial}` : subject.text)

function tellKey(spki: Uint8Array): string {
  try {
    const { type, family, modulus } = readPublicKeyInfo(spki)
    return family === 'rsa' && modulus ? `rsa, ${modulus.length * 8} bits` : type
  } catch {
    return 'of a kind that is not supported'
  }
}

const purposes: ReadonlyMap<string, string> = new Map([
  [oid.serverAuth, 'serverAuth'],
  [oid.clientAuth, 'clientAuth'],
])
