/** Orders and drafts as they travel to other threads and back. */
import type { Instant } from '../kernel/clock.ts'
import type { Duration } from '../kernel/duration.ts'
import type { Threads } from '../kernel/threads.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { parseCertificate } from '../x509/certificate.ts'
import { provenElsewhere } from '../x509/certificate-request.ts'
import type { KeyType, PublicKeyType } from '../x509/key-type.ts'
import type { SubjectAttributes } from '../x509/subject.ts'
import { complete, draftLeaf, type Issuing, type LeafOrder, type Workbench } from './workbench.ts'

export type WorkbenchThreads = Threads<Question, Answer>

/** The workbenches of other threads. */
export function overThreads(threads: WorkbenchThreads): Workbench {
  return {
    async draftLeaf(order) {
      const { applicant, serial, issuer, spiffeId, dnsNames, subject, trustDomain, at, notBefore, notAfter, longest } = order
      const { tbs, spki } = await threads.ask({
        draft: { spiffeId, dnsNames, subject, trustDomain, at, notBefore, notAfter, longest },
        applicant: text(applicant instanceof Uint8Array ? applicant : applicant.spki),
        proven: applicant instanceof Uint8Array ? undefined : applicant.keyType,
        serial: text(serial),
        issuer: messageOf(issuer),
      })
      return { tbs: bytes(tbs), spki: bytes(spki) }
    },
    async complete({ tbs, signature, signer }) {
      const { der } = await threads.ask({
        complete: text(tbs),
        signature: text(signature),
        keyType: signer.keyType,
        publicKey: text(signer.publicKey),
      })
      return bytes(der)
    },
  }
}

/** On the other thread. */
export function work(question: Question): Answer {
  if ('complete' in question) {
    const signer = { keyType: question.keyType, publicKey: bytes(question.publicKey) }
    return { ...nothing, der: text(complete({ tbs: bytes(question.complete), signature: bytes(question.signature), signer })) }
  }
  const { draft, applicant, proven, serial, issuer } = question
  const order: LeafOrder = {
    ...draft,
    applicant: proven === undefined ? bytes(applicant) : provenElsewhere({ spki: bytes(applicant), keyType: proven }),
    serial: bytes(serial),
    issuer: issuingOf(issuer),
  }
  const { tbs, spki } = draftLeaf(order)
  return { ...nothing, tbs: text(tbs), spki: text(spki) }
}

type Question = DraftQuestion | CompleteQuestion

interface DraftQuestion {
  readonly draft: {
    readonly trustDomain: TrustDomain
    readonly spiffeId: SpiffeId
    readonly dnsNames: readonly string[]
    readonly subject: SubjectAttributes | undefined
    readonly at: Instant
    readonly notBefore: Instant
    readonly notAfter: Instant
    readonly longest: Duration
  }
  /** A request, or the key that was proven. */
  readonly applicant: string
  readonly proven: PublicKeyType | undefined
  readonly serial: string
  readonly issuer: IssuingMessage
}

interface CompleteQuestion {
  readonly complete: string
  readonly signature: string
  readonly keyType: KeyType
  readonly publicKey: string
}

interface Answer {
  readonly tbs: string
  readonly spki: string
  readonly der: string
}

interface IssuingMessage {
  readonly certificate: string
  readonly keyType: KeyType
  readonly authorityKeys: readonly string[]
}

/** The same object for the same authority, so that a message of many orders holds it once. */
function messageOf(issuing: Issuing): IssuingMessage {
  let message = messages.get(issuing)
  if (!message) {
    message = { certificate: text(issuing.certificate.raw), keyType: issuing.keyType, authorityKeys: issuing.authorityKeys.map(text) }
    messages.set(issuing, message)
  }
  return message
}

/** An authority is read once a message, not once an order. */
function issuingOf(message: IssuingMessage): Issuing {
  let issuing = read.get(message)
  if (!issuing) {
    const { certificate, keyType, authorityKeys } = message
    issuing = { certificate: parseCertificate(bytes(certificate)), keyType, authorityKeys: authorityKeys.map(bytes) }
    read.set(message, issuing)
  }
  return issuing
}

const text = (value: Uint8Array): string => Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('latin1')
const bytes = (value: string): Uint8Array => new Uint8Array(Buffer.from(value, 'latin1'))
const messages = new WeakMap<Issuing, IssuingMessage>()
const read = new WeakMap<IssuingMessage, Issuing>()
const nothing: Answer = { tbs: '', spki: '', der: '' }
