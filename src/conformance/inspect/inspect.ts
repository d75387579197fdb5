/** Says what a document is, in which form it comes, and which rules it breaks. */
import { createHash, createPrivateKey, createPublicKey } from 'node:crypto'
import { fromUtf8, hex } from '../../kernel/bytes.ts'
import { Failure, failedWith } from '../../kernel/failure.ts'
import { type Certificate, parseCertificate, parseCertificates } from '../../x509/certificate.ts'
import { parseCertificateRequest } from '../../x509/certificate-request.ts'
import { parsePem, type PemBlock } from '../../x509/pem.ts'
import { isObject } from '../documents.ts'
import { readJson } from '../json.ts'
import { inspectBundle, inspectKeySet, inspectMap } from './bundles.ts'
import { inspectAuthority, inspectCertificates, inspectRequest } from './certificates.ts'
import { factsOf, flawsOf, type Inspected, type Looking, refusalFlaw } from './inspection.ts'
import { formOfToken, inspectToken } from './tokens.ts'

/** What a document can be. */
export type Form = 'certificate' | 'certificate-request' | 'jwt-svid' | 'wit-svid' | 'bundle' | 'bundle-map' | 'key-set' | 'spiffe-id'

/**
 * Everything that an input holds. The form is found out where none is given.
 * @throws Failure `usage.not-recognised` for what has none of the forms, `usage.too-large`, `usage.trust-bundle`
 */
export async function inspect(input: Uint8Array, form: Form | undefined, looking: Looking): Promise<Inspected[]> {
  if (input.length > maxBytes) {
    throw new Failure('invalid_argument', 'usage.too-large', { public: `the input has ${input.length} bytes: at most ${maxBytes}` })
  }
  const text = textIn(input)
  if (text === undefined) return inspectDer(input, form ?? formOfDer(input), looking)
  if (/^-----BEGIN /m.test(text)) return inspectPem(text, looking)
  return inspectText(text.trim(), form ?? formOfText(text.trim()), looking)
}

async function inspectText(text: string, form: Form | undefined, looking: Looking): Promise<Inspected[]> {
  switch (form) {
    case 'spiffe-id':
      return [{ kind: 'spiffe-id', title: 'a SPIFFE ID', facts: factsOf([['spiffe id', text]]), flaws: flawsOf('id', text) }]
    case 'jwt-svid':
    case 'wit-svid':
      return [await inspectToken(text, form, looking)]
    case 'bundle':
      return reading(form, () => inspectBundle(readJson(text), looking, inspectAuthority))
    case 'bundle-map':
      return reading(form, () => inspectMap(readJson(text), looking, inspectAuthority))
    case 'key-set':
      return reading(form, () => [inspectKeySet(readJson(text))])
    case 'certificate':
    case 'certificate-request':
      return inspectDer(Buffer.from(text, 'base64'), form, looking)
    case undefined:
      throw notRecognised()
  }
}

function formOfText(text: string): Form | undefined {
  if (/^[a-z]+:\/\//i.test(text) && !/\s/.test(text)) return 'spiffe-id'
  if (text.startsWith('{')) return formOfJson(text)
  const parts = text.split('.').length
  if ((parts === 3 || parts === 5) && /^[A-Za-z0-9_.-]+$/.test(text)) return formOfToken(text)
  return undefined
}

function formOfJson(text: string): Form | undefined {
  const value = valueOf(text)
  if (!isObject(value)) return undefined
  if ('trust_domains' in value) return 'bundle-map'
  if ('payload' in value && ('signature' in value || 'signatures' in value)) return 'jwt-svid'
  if (!('keys' in value) && !('spiffe_sequence' in value)) return undefined
  const keys = Array.isArray(value['keys']) ? value['keys'].filter(isObject) : []
  const isBundle = 'spiffe_sequence' in value || 'spiffe_refresh_hint' in value || keys.some((key) => 'use' in key || 'x5c' in key)
  return isBundle ? 'bundle' : 'key-set'
}

/** What stands twice in a document is said when it is read: it does not make it another one. */
function valueOf(text: string): unknown {
  try {
    return readJson(text).value
  } catch (error) {
    if (failedWith(error, 'json.duplicate-name')) return JSON.parse(text) as unknown
    throw new Failure('invalid_argument', 'usage.not-recognised', {
      public: `this begins as JSON does, and is ${Failure.from(error).message}`,
    })
  }
}

/** A request begins with a number inside of its first part, a certificate with a tagged version or a longer number. */
function formOfDer(der: Uint8Array): Form {
  try {
    parseCertificateRequest(der)
    return 'certificate-request'
  } catch {
    return 'certificate'
  }
}

async function inspectDer(der: Uint8Array, form: Form, looking: Looking): Promise<Inspected[]> {
  if (form === 'certificate-request') return reading(form, () => inspectRequest(parseCertificateRequest(der)).then((one) => [one]))
  if (form !== 'certificate' || der[0] !== 0x30) throw notRecognised()
  return reading(form, () => inspectCertificates(parseCertificates(der), looking))
}

async function inspectPem(text: string, looking: Looking): Promise<Inspected[]> {
  const blocks = await reading('certificate', () => parsePem(text))
  const certificates: Certificate[] = []
  const others: Inspected[] = []
  for (const block of blocks) {
    if (!('label' in block)) others.push(block)
    else if (block.label === 'CERTIFICATE') {
      for (const one of await reading('certificate', () => [parseCertificate(block.der)])) {
        if ('raw' in one) certificates.push(one)
        else others.push(one)
      }
    } else if (block.label.endsWith('CERTIFICATE REQUEST')) others.push(...(await inspectDer(block.der, 'certificate-request', looking)))
    else if (block.label.endsWith('PRIVATE KEY')) others.push(privateKey(block))
    else others.push({ kind: 'unknown', title: `a PEM block \`${block.label}\``, facts: [], flaws: [] })
  }
  return [...inspectCertificates(certificates, looking), ...others]
}

/** That there is one, and which public key belongs to it; nothing of itself. */
function privateKey({ der, label }: PemBlock): Inspected {
  const facts = factsOf([['public key (sha-256)', label === 'PRIVATE KEY' ? fingerprintOf(der) : undefined]])
  return { kind: 'private-key', title: 'a private key, which is not shown', facts, flaws: [] }
}

function fingerprintOf(pkcs8: Uint8Array): string | undefined {
  try {
    const key = createPrivateKey({ key: Buffer.from(pkcs8), format: 'der', type: 'pkcs8' })
    return hex(
      createHash('sha256')
        .update(createPublicKey(key).export({ format: 'der', type: 'spki' }))
        .digest(),
    )
  } catch {
    return undefined
  }
}

/** What cannot be read is a flaw of the document, not of whoever looks at it. */
async function reading<T>(form: Form, read: () => readonly T[] | Promise<readonly T[]>): Promise<(T | Inspected)[]> {
  try {
    return [...(await read())]
  } catch (error) {
    const failure = Failure.from(error)
    if (failure.reason.startsWith('usage.')) throw failure
    return [
      {
        kind: form,
        title: `something that is meant to be a ${form.replace('-', ' ')}, and cannot be read`,
        facts: [],
        flaws: refusalFlaw(failure, []),
      },
    ]
  }
}

function notRecognised(): Failure {
  return new Failure('invalid_argument', 'usage.not-recognised', {
    public:
      'this is none of the documents that are known: expected a certificate, a certificate request, a token, a bundle document, a bundle map, a JWK set or a SPIFFE ID, in PEM, DER, JSON or text; `--as` says which it is meant to be',
  })
}

/** The text of an input that is one; DER never is. */
function textIn(input: Uint8Array): string | undefined {
  if (input[0] === 0x30 && (input[1] ?? 0) >= 0x80) return undefined
  try {
    return fromUtf8(input)
  } catch {
    return undefined
  }
}

const maxBytes = 4 * 1024 * 1024
