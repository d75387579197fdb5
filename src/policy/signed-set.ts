/**
 * A policy set that somebody answers for: a manifest of its documents and options under a signature (JWS, RFC 7515).
 * The serial only grows and the manifest expires, so that neither an older set nor an abandoned one can be put in force again.
 */
import { createHash, type KeyObject } from 'node:crypto'
import { CompactSign, compactVerify } from 'jose'
import { z } from 'zod'
import { fromUtf8, utf8 } from '../kernel/bytes.ts'
import { formatInstant, parseInstant, type Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import type { LanguageOptions } from './language.ts'
import type { PolicyDocument } from './policy-set.ts'

/** What a manifest says beside the names and digests of the documents. */
export interface SetClaims {
  /** Above that of every set before it: 1 to 2^53 - 1. */
  readonly serial: number
  /** From this moment on it is accepted no more. One that is in force stays there. */
  readonly expires: Instant
}

export interface SignableSet {
  readonly documents: readonly PolicyDocument[]
  readonly options: LanguageOptions
}

/** Whose signature counts, and which serial was the last. */
export interface SetVerification {
  /** 1 to 16 public keys: P-256, P-384, Ed25519 or RSA. */
  readonly keys: readonly KeyObject[]
  /** The serial accepted last; 0 before the first. */
  readonly after: number
  readonly at: Instant
}

/** Signs a whole set. @returns compact JWS. @throws Failure `policy.signing-key` for a kind of key that is not used here */
export async function signPolicySet(set: SignableSet, { serial, expires }: SetClaims, key: KeyObject): Promise<string> {
  const manifest: z.input<typeof manifestSchema> = {
    format,
    serial,
    expires: formatInstant(expires),
    options: withoutAbsent(set.options),
    documents: digestsOf(set.documents),
  }
  return new CompactSign(utf8(JSON.stringify(manifest))).setProtectedHeader({ alg: algorithmOf(key), typ }).sign(key)
}

/**
 * Checks that a set is what one of the keys signed, newer than the one before, and still good.
 * @throws Failure `policy.unsigned`, `policy.signature-invalid`, `policy.signature-mismatch`, `policy.older-serial`, `policy.signature-expired`
 */
export async function verifyPolicySet(
  set: SignableSet & { readonly signature?: string | undefined },
  { keys, after, at }: SetVerification,
): Promise<SetClaims> {
  const claims = await authenticPolicySet(set, keys)
  if (claims.serial <= after)
    throw refused(
      'older-serial',
      `the policies are signed with serial ${claims.serial}: expected one above ${after}, the last that was accepted`,
    )
  if (at >= claims.expires)
    throw refused('signature-expired', `the signature of the policies expired ${formatInstant(claims.expires)}: sign them again`)
  return claims
}

/** Checks the signature and what it covers, whatever the serial and the time: for a set that was accepted before. @throws as {@link verifyPolicySet} */
export async function authenticPolicySet(
  { documents, options, signature }: SignableSet & { readonly signature?: string | undefined },
  keys: readonly KeyObject[],
): Promise<SetClaims> {
  if (signature === undefined) throw refused('unsigned', 'the policies are not signed: expected the output of `vidimus policy sign`')
  if (signature.length > maxSignature)
    throw refused('signature-invalid', `the signature of the policies is longer than ${maxSignature} characters`)
  const manifest = await openManifest(signature, keys)
  if (JSON.stringify(manifest.documents) !== JSON.stringify(digestsOf(documents)))
    throw refused(
      'signature-mismatch',
      `the signature is of other documents than these: ${firstDifference(manifest.documents, digestsOf(documents))}`,
    )
  if (JSON.stringify(manifest.options) !== JSON.stringify(withoutAbsent(options)))
    throw refused('signature-mismatch', 'the signature is of other options (mode, root namespace, path normalization) than these')
  return { serial: manifest.serial, expires: manifest.expires }
}

async function openManifest(signature: string, keys: readonly KeyObject[]): Promise<z.output<typeof manifestSchema>> {
  for (const key of keys.slice(0, maxKeys)) {
    const payload = await compactVerify(signature, key, { algorithms: [algorithmOf(key)] }).then(
      ({ payload: verified, protectedHeader }) => (protectedHeader.typ === typ ? verified : undefined),
      () => undefined,
    )
    if (!payload) continue
    const manifest = manifestSchema.safeParse(parsed(fromUtf8(payload)))
    if (manifest.success) return manifest.data
    throw refused('signature-invalid', 'what was signed is no manifest of policies')
  }
  throw refused('signature-invalid', 'the signature of the policies is of none of the keys that are trusted for it')
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function digestsOf(documents: readonly PolicyDocument[]): Digest[] {
  return documents
    .map(({ name, text }) => ({ name, sha256: createHash('sha256').update(text).digest('hex') }))
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
}

function firstDifference(signed: readonly Digest[], found: readonly Digest[]): string {
  const [expected, have] = [new Map(signed.map((one) => [one.name, one.sha256])), new Map(found.map((one) => [one.name, one.sha256]))]
  const missing = signed.find(({ name }) => !have.has(name))
  if (missing) return `\`${missing.name}\` is missing`
  const extra = found.find(({ name }) => !expected.has(name))
  if (extra) return `\`${extra.name}\` was not signed`
  return `\`${found.find(({ name, sha256 }) => expected.get(name) !== sha256)?.name ?? ''}\` has changed`
}

/** In one order, and without what is not set, so that equal options have equal texts. */
function withoutAbsent({ mode, rootNamespace, pathNormalization, trustDomainAliases }: LanguageOptions): z.output<typeof optionsSchema> {
  return {
    ...(mode === undefined ? {} : { mode }),
    ...(rootNamespace === undefined ? {} : { rootNamespace }),
    ...(pathNormalization === undefined ? {} : { pathNormalization }),
    ...(trustDomainAliases === undefined ? {} : { trustDomainAliases: [...trustDomainAliases] }),
  }
}

/** The algorithm comes from the key, never from the signature. */
function algorithmOf({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): string {
  const algorithm = asymmetricKeyType === 'ec' ? curves[asymmetricKeyDetails?.namedCurve ?? ''] : others[asymmetricKeyType ?? '']
  if (algorithm !== undefined) return algorithm
  throw new Failure('invalid_argument', 'policy.signing-key', {
    public: `policies are signed with a key on P-256, P-384 or Ed25519, or with RSA: found ${asymmetricKeyType ?? 'a secret key'}`,
  })
}

const refused = (reason: string, text: string): Failure => new Failure('failed_precondition', `policy.${reason}`, { public: text })

const curves: Readonly<Record<string, string>> = { prime256v1: 'ES256', secp384r1: 'ES384' }
const others: Readonly<Record<string, string>> = { ed25519: 'EdDSA', rsa: 'PS256' }

type Digest = { readonly name: string; readonly sha256: string }
const format = 'vidimus-policy-set/1'
const typ = 'vidimus-policy-set'
const optionsSchema = z.strictObject({
  mode: z.enum(['strict', 'istio']).exactOptional(),
  rootNamespace: z.string().exactOptional(),
  pathNormalization: z.enum(['none', 'base', 'merge-slashes', 'decode-and-merge-slashes']).exactOptional(),
  trustDomainAliases: z.array(z.string()).max(100).exactOptional(),
})
const manifestSchema = z.strictObject({
  format: z.literal(format),
  serial: z.int().min(1),
  expires: z.string().transform((text, context) => {
    const at = parseInstant(text)
    if (at !== undefined) return at
    context.addIssue('expected a moment')
    return z.NEVER
  }),
  options: optionsSchema,
  documents: z.array(z.strictObject({ name: z.string(), sha256: z.string() })).max(1000),
})
const maxKeys = 16
/** A thousand documents with long names. */
const maxSignature = 1024 * 1024
