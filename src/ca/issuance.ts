/**
 * The one way to a signature by a key of this CA: the exact bytes are checked, what is about to be signed is on the disk, and then those bytes
 * are signed once (C-8, C-9, C-10).
 * INVARIANT: no other file asks a key to sign a certificate, and no key signs what was not written down.
 */
import { hash } from 'node:crypto'
import { sameBytes, hex } from '../kernel/bytes.ts'
import type { Instant } from '../kernel/clock.ts'
import { seconds, type Duration } from '../kernel/duration.ts'
import { idOfTrustDomain } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { parseCertificate, type Certificate } from '../x509/certificate.ts'
import { createCertificateRequest, parseCertificateRequest, proven } from '../x509/certificate-request.ts'
import type { Signer } from '../x509/signature.ts'
import type { Intent, Intents } from './intents.ts'
import { authoritySubject, broken, demandSecondOpinion, draftAuthority, type Draft, type LeafOrder, type Workbench } from './workbench.ts'

/** The right to one signature over bytes that were checked. Only {@link prepareLeaf} and {@link prepareAuthority} make one. */
export type { IssuanceToken }

/** What a token is redeemed with, beside the key. */
export interface Office {
  readonly intents: Intents
  readonly workbench: Workbench
}

/** For whom it is, to be written down. */
export type Purpose = Pick<Intent, 'entry' | 'revision'>

/** What a caller told of it. */
export const purposeIn = (context: Readonly<Record<string, string>>): Purpose => ({
  entry: context['entry'] ?? '',
  revision: context['revision'] ?? '',
})

/** Shapes and checks a leaf. A key that was proven is all that comes from whoever asked. @throws Failure `lint.*`, `ca.authority-key`, `der.*`, `x509.*` */
export async function prepareLeaf(order: LeafOrder, issuerKey: Signer, purpose: Purpose, workbench: Workbench): Promise<IssuanceToken> {
  const draft = await workbench.draftLeaf(order)
  return new IssuanceToken(draft, issuerKey.publicKey, {
    kind: 'x509',
    name: hex(order.serial),
    hash: hash('sha256', draft.tbs),
    id: order.spiffeId,
    ...purpose,
    until: order.notAfter,
  })
}

export interface AuthorityOrder {
  /** Of the authority. */
  readonly key: Signer
  /** Whoever stands above it; it signs itself when left out. */
  readonly issuer?: AuthorityIssuer | undefined
  readonly trustDomain: TrustDomain
  readonly serial: Uint8Array
  readonly at: Instant
  readonly backdate: Duration
  readonly lifetime: Duration
  readonly pathLength: number
  /** To SPIFFE IDs of its trust domain (C-6). */
  readonly constrained?: boolean
}

/** A certificate of a CA, and the key that it names. */
export interface AuthorityIssuer {
  readonly certificate: Certificate
  readonly key: Signer
}

/** Shapes and checks an authority; a second reader that shares nothing with ours reads it too. @throws Failure `lint.*`, `x509.library` */
async function prepareAuthority({ backdate, lifetime, ...order }: AuthorityOrder): Promise<IssuanceToken> {
  const { notBefore: earliest = -Infinity, notAfter: latest = Infinity } = order.issuer?.certificate ?? {}
  const period = validity({ at: order.at, backdate, lifetime, earliest, latest })
  const expected = { ...order, ...period, longest: lifetime }
  const draft = draftAuthority(expected)
  await demandSecondOpinion(draft, expected)
  return new IssuanceToken(draft, (order.issuer?.key ?? order.key).publicKey, {
    kind: 'authority',
    name: hex(order.serial),
    hash: hash('sha256', draft.tbs),
    id: idOfTrustDomain(order.trustDomain),
    entry: '',
    revision: '',
    until: period.notAfter,
  })
}

/** An authority, from order to certificate. @throws Failure those of {@link prepareAuthority} and {@link redeem} */
export async function issueAuthority(order: AuthorityOrder, office: Office, signal: AbortSignal): Promise<Certificate> {
  const { certificate, intent } = await redeem(await prepareAuthority(order), order.issuer?.key ?? order.key, office, signal)
  office.intents.settle(intent, 'issued')
  return parseCertificate(certificate)
}

/** A certificate, and what was written down before it was made: whoever hands it out settles that. */
export interface Redeemed {
  /** DER. */
  readonly certificate: Uint8Array
  readonly intent: Intent
}

/**
 * Spends a token: writes its intent, signs its bytes, and hands out the certificate only if it says what was checked and the signature holds (C-9, C-11).
 * @throws Failure `issuance.wrong-key`, `issuance.bytes-changed`, `issuance.bad-signature`, `intents.*`, and whatever the key manager meets
 */
export async function redeem(token: IssuanceToken, signer: Signer, { intents, workbench }: Office, signal: AbortSignal): Promise<Redeemed> {
  const { draft, intent } = token.spend(signer)
  const { tbs } = draft
  await intents.intend(intent)
  try {
    const signature = await signer.sign(new Uint8Array(tbs), signal)
    return { certificate: await workbench.complete({ tbs, signature, signer }), intent }
  } catch (error) {
    intents.settle(intent, 'withheld')
    throw error
  }
}

/**
 * A signer of tokens, which writes an intent with the hash of the very bytes before it signs them (C-10).
 * Its first signature is its only one.
 */
export function recordedSigner(
  key: Signer,
  told: Omit<Intent, 'hash'>,
  intents: Intents,
): { readonly signer: Signer; settle(outcome: 'issued' | 'withheld'): void } {
  let intent: Intent | undefined
  const signer: Signer = {
    keyType: key.keyType,
    publicKey: key.publicKey,
    async sign(message, signal) {
      if (intent) throw new Error('bug: a recorded signer is used twice')
      intent = { ...told, hash: hash('sha256', message) }
      await intents.intend(intent)
      return key.sign(message, signal)
    },
  }
  return { signer, settle: (outcome) => intent && intents.settle(intent, outcome) }
}

/** Asks somebody else to make `key` an authority of the trust domain: a PKCS #10 request that names it as a root would be named. */
export async function authorityRequest(order: {
  readonly key: Signer
  readonly trustDomain: TrustDomain
  readonly serial: Uint8Array
}): Promise<Uint8Array> {
  const { key, trustDomain, serial } = order
  const request = await createCertificateRequest({ signer: key, subject: authoritySubject(serial), uris: [idOfTrustDomain(trustDomain)] })
  await proven(parseCertificateRequest(request))
  return request
}

/** The last second counts (C-3), and nothing leaves the validity of its issuer (C-2). */
export function validity(granted: {
  readonly at: Instant
  readonly backdate: Duration
  readonly lifetime: Duration
  readonly earliest: Instant
  /** The last second. */
  readonly latest: Instant
}): { readonly notBefore: Instant; readonly notAfter: Instant } {
  const { at, backdate, lifetime, earliest, latest } = granted
  const whole = (moment: Instant): Instant => Math.floor(moment / seconds(1)) * seconds(1)
  return { notBefore: Math.max(whole(at - backdate), earliest), notAfter: Math.min(whole(at + lifetime) - seconds(1), whole(latest)) }
}

/** INVARIANT: bound to its bytes and to one key, and spent by the first try. */
class IssuanceToken {
  readonly #draft: Draft
  readonly #signerKey: Uint8Array
  readonly #intent: Intent
  #spent = false

  constructor(draft: Draft, signerKey: Uint8Array, intent: Intent) {
    this.#draft = draft
    this.#signerKey = signerKey
    this.#intent = intent
  }

  /** SubjectPublicKeyInfo of whom it is for. */
  get spki(): Uint8Array {
    return this.#draft.spki
  }

  /** What was checked. */
  spend(signer: Signer): { readonly draft: Draft; readonly intent: Intent } {
    if (this.#spent) throw new Error('bug: an issuance token is spent twice')
    this.#spent = true
    if (!sameBytes(signer.publicKey, this.#signerKey))
      throw broken('wrong-key', 'a certificate was checked for another key than the one that is to sign it')
    return { draft: this.#draft, intent: this.#intent }
  }
}
