import type { Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import { oid } from './oid.ts'

/** What a second reader, which shares nothing with ours, sees in a certificate. */
export interface SecondOpinion {
  readonly subjectText: string
  readonly issuerText: string
  /** Lower-case hex. */
  readonly serial: string
  readonly notBefore: Instant
  readonly notAfter: Instant
  readonly uris: readonly string[]
  readonly dnsNames: readonly string[]
  readonly isCa: boolean
  readonly pathLength: number | undefined
  readonly mayCertify: boolean
  /** DER. */
  readonly spki: Uint8Array
  readonly extensionTypes: readonly string[]
}

/**
 * Reads a certificate with @peculiar/x509: about a millisecond, so for CA certificates, inspection and tests.
 * The library is loaded at the first call, since it takes a tenth of a second.
 * @throws Failure `x509.library` where the library cannot read it
 */
export async function readByLibrary(der: Uint8Array): Promise<SecondOpinion> {
  const library = await loaded()
  try {
    return describe(library, new library.X509Certificate(Uint8Array.from(der)))
  } catch (cause) {
    throw new Failure('invalid_argument', 'x509.library', { public: 'a certificate could not be read a second time', cause })
  }
}

/** Whether the library finds the certificate signed by this issuer. Dates are not looked at. */
export async function signedByLibrary(der: Uint8Array, issuerDer: Uint8Array): Promise<boolean> {
  const library = await loaded()
  const issuer = new library.X509Certificate(Uint8Array.from(issuerDer))
  return new library.X509Certificate(Uint8Array.from(der)).verify({ publicKey: issuer.publicKey, signatureOnly: true })
}

type Library = typeof import('@peculiar/x509')

async function load(): Promise<Library> {
  // @peculiar/x509 is put together by decorators that need this to be there first.
  await import('reflect-metadata')
  const [library, { Crypto }] = await Promise.all([import('@peculiar/x509'), import('@peculiar/webcrypto')])
  library.cryptoProvider.set(new Crypto())
  return library
}

let loading: Promise<Library> | undefined
const loaded = (): Promise<Library> => (loading ??= load())

function describe(library: Library, certificate: InstanceType<Library['X509Certificate']>): SecondOpinion {
  const names = certificate.getExtension(library.SubjectAlternativeNameExtension)?.names.items ?? []
  const constraints = certificate.getExtension(library.BasicConstraintsExtension)
  const usages = certificate.getExtension(library.KeyUsagesExtension)?.usages ?? 0
  if (certificate.getExtension(oid.subjectAltName) && names.length === 0) throw new Error('the alternative names cannot be read')
  return {
    subjectText: certificate.subject,
    issuerText: certificate.issuer,
    serial: certificate.serialNumber.toLowerCase(),
    notBefore: certificate.notBefore.getTime(),
    notAfter: certificate.notAfter.getTime(),
    uris: names.filter(({ type }) => type === 'url').map(({ value }) => value),
    dnsNames: names.filter(({ type }) => type === 'dns').map(({ value }) => value),
    isCa: constraints?.ca ?? false,
    pathLength: constraints?.pathLength,
    mayCertify: (usages & library.KeyUsageFlags.keyCertSign) !== 0,
    spki: new Uint8Array(certificate.publicKey.rawData),
    extensionTypes: certificate.extensions.map(({ type }) => type),
  }
}
