/** What the CA remembers across restarts: which keys and certificates are prepared, active and old. No private key is in it. */
import { z } from 'zod'
import { base64 } from '../kernel/bytes.ts'
import { Failure } from '../kernel/failure.ts'
import { parseCertificate, type Certificate } from '../x509/certificate.ts'
import type { Instant } from '../kernel/clock.ts'
import { noSlots, type Authority, type Next, type OldAuthority, type Slots } from './slots.ts'

/** PORT: keeps one journal for each server, replaced in one step. */
export interface CaJournal {
  /** The newest record, or undefined on a new server. Revisions count the writes: the first record has 1n. */
  read(serverId: string): Promise<{ readonly record: string; readonly revision: bigint } | undefined>
  /**
   * Stores `record` if the stored revision still is `revision` (0n for none), which then is `revision + 1n`.
   * @throws Failure `journal.changed-meanwhile`
   */
  write(serverId: string, record: string, revision: bigint): Promise<void>
  /** The newest record of every other server: a key that one of them names is not ours to destroy (C-22). */
  others(serverId: string): Promise<readonly string[]>
}

/** What makes a key an X.509 authority. */
export interface X509Material {
  /** Our certificate first, then the intermediates up to, not including, a root; for a root of our own that certificate alone. */
  readonly chain: readonly [Certificate, ...Certificate[]]
  readonly roots: readonly Certificate[]
}

/** What makes a key a JWT or a WIT authority. */
export interface JwtMaterial {
  /** The `kid` of its tokens. */
  readonly kid: string
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Uint8Array
}

/** Everything that must be known again after a power cut. */
export interface JournalRecord {
  /** Of the trust bundle that follows from the slots (B-2). */
  readonly sequence: bigint
  readonly x509: Slots<X509Material>
  readonly jwt: Slots<JwtMaterial>
  readonly wit: Slots<JwtMaterial>
  /** Roots above us that an operator distrusts, by their subject key identifier in hex. */
  readonly roots: DistrustedRoots
  /** Roots that the upstream announced, whether anything below them is there yet or not (V-7). */
  readonly announced: readonly Certificate[]
  /** Keys that no authority needs any more, and since when (C-22). */
  readonly spent: readonly SpentKey[]
}

export interface DistrustedRoots {
  readonly tainted: readonly string[]
  readonly revoked: readonly string[]
}

export interface SpentKey {
  readonly keyId: string
  readonly since: Instant
}

export const emptyRecord: JournalRecord = {
  sequence: 0n,
  x509: noSlots,
  jwt: noSlots,
  wit: noSlots,
  roots: { tainted: [], revoked: [] },
  announced: [],
  spent: [],
}

export function formatRecord({ sequence, x509, jwt, wit, roots, announced, spent }: JournalRecord): string {
  return JSON.stringify({
    version: 2,
    sequence: String(sequence),
    x509: writeSlots(x509, writeX509),
    jwt: writeSlots(jwt, writeJwt),
    wit: writeSlots(wit, writeJwt),
    roots,
    announced: announced.map(({ raw }) => base64(raw)),
    spent,
  })
}

/** Whether a record, of this version or another, names a key. */
export const namesKey = (record: string, keyId: string): boolean => record.includes(JSON.stringify(keyId))

/** @throws Failure `journal.unreadable` */
export function parseRecord(text: string): JournalRecord {
  try {
    const { sequence, x509, jwt, wit, roots, announced, spent } = recordSchema.parse(JSON.parse(text))
    return {
      sequence: BigInt(sequence),
      x509: readSlots(x509, readX509),
      jwt: readSlots(jwt, readJwt),
      wit: readSlots(wit, readJwt),
      roots,
      announced: announced.map(readCertificate),
      spent,
    }
  } catch (cause) {
    throw new Failure('failed_precondition', 'journal.unreadable', {
      public: 'the journal of the CA cannot be read: it is damaged or of a newer version',
      cause,
    })
  }
}

const writeX509 = ({ chain, roots }: X509Material) => ({
  chain: chain.map(({ raw }) => base64(raw)),
  roots: roots.map(({ raw }) => base64(raw)),
})
const writeJwt = ({ kid, publicKey }: JwtMaterial) => ({ kid, publicKey: base64(publicKey) })

const readX509 = ({ chain, roots }: z.infer<typeof x509Schema>): X509Material => ({
  chain: chain.map(readCertificate) as [Certificate, ...Certificate[]],
  roots: roots.map(readCertificate),
})
const readJwt = ({ kid, publicKey }: z.infer<typeof jwtSchema>): JwtMaterial => ({
  kid,
  publicKey: Uint8Array.from(Buffer.from(publicKey, 'base64')),
})
const readCertificate = (text: string): Certificate => parseCertificate(Buffer.from(text, 'base64'))

interface WrittenAuthority<Written> {
  readonly keyId: string
  readonly from: number
  readonly until: number
  readonly material: Written
}

type WrittenNext<Written> =
  | { readonly stage: 'intended'; readonly keyId: string }
  | { readonly stage: 'made'; readonly authority: WrittenAuthority<Written> }
  | { readonly stage: 'published'; readonly authority: WrittenAuthority<Written>; readonly since: number }

interface WrittenSlots<Written> {
  readonly active?: WrittenAuthority<Written> | undefined
  readonly next?: WrittenNext<Written> | undefined
  readonly old: readonly (WrittenAuthority<Written> & { readonly tainted: boolean })[]
}

function writeSlots<M, Written>({ active, next, old }: Slots<M>, write: (material: M) => Written): WrittenSlots<Written> {
  return mapSlots({ active, next, old }, write)
}

function readSlots<M, Written>({ active, next, old }: WrittenSlots<Written>, read: (written: Written) => M): Slots<M> {
  return mapSlots({ active, next, old }, read)
}

function mapSlots<A, B>({ active, next, old }: Slots<A>, change: (material: A) => B): Slots<B> {
  const authority = (one: Authority<A>): Authority<B> => ({ ...one, material: change(one.material) })
  const oldOne = (one: OldAuthority<A>): OldAuthority<B> => ({ ...authority(one), tainted: one.tainted })
  return { active: active && authority(active), next: next && mapNext(next, authority), old: old.map(oldOne) }
}

function mapNext<A, B>(next: Next<A>, change: (authority: Authority<A>) => Authority<B>): Next<B> {
  return next.stage === 'intended' ? next : { ...next, authority: change(next.authority) }
}

const moment = z.number()
const keyId = z.string().min(1)
const bytes = z.base64().min(1)
const x509Schema = z.strictObject({ chain: z.array(bytes).min(1), roots: z.array(bytes).min(1) })
const jwtSchema = z.strictObject({ kid: z.string().min(1), publicKey: bytes })

function slotsSchema<Material extends z.ZodType>(material: Material) {
  const fields = { keyId, from: moment, until: moment, material }
  const authority = z.strictObject(fields)
  const old = z.strictObject({ ...fields, tainted: z.boolean().default(false) })
  const next = z.discriminatedUnion('stage', [
    z.strictObject({ stage: z.literal('intended'), keyId }),
    z.strictObject({ stage: z.literal('made'), authority }),
    z.strictObject({ stage: z.literal('published'), authority, since: moment }),
  ])
  return z.strictObject({ active: authority.optional(), next: next.optional(), old: z.array(old) })
}

/** Version 1 knew no WIT keys and distrusted nothing; what is missing is empty. */
const recordSchema = z.strictObject({
  version: z.literal([1, 2]),
  sequence: z.string().regex(/^\d{1,20}$/),
  x509: slotsSchema(x509Schema),
  jwt: slotsSchema(jwtSchema),
  wit: slotsSchema(jwtSchema).prefault({ old: [] }),
  roots: z.strictObject({ tainted: z.array(keyId), revoked: z.array(keyId) }).prefault({ tainted: [], revoked: [] }),
  announced: z.array(bytes).default([]),
  spent: z.array(z.strictObject({ keyId, since: moment })).default([]),
})
