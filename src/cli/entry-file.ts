/** Registration entries as JSON: what `entry show` prints, `entry import` reads. */
import { z } from 'zod'
import { formatInstant, parseInstant } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import type { EntryDraft, RegistrationEntry } from '../registry/entry.ts'
import { readClaims, type AddedClaims } from '../spiffe/claims.ts'
import { parseSpiffeId } from '../spiffe/id.ts'
import { formatJson, isJsonObject, parseJsonObject, type JsonValue } from '../spiffe/json.ts'
import { formatSelector, parseSelector } from '../spiffe/selector.ts'
import { parseTrustDomain } from '../spiffe/trust-domain.ts'
import { parseSubject, type SubjectAttributes } from '../x509/subject.ts'
import { parsed } from './flags.ts'

/** TTLs in whole seconds, moments in RFC 3339, selectors as text. */
export function toldEntry({ x509SvidTtl, jwtSvidTtl, createdAt, expiresAt, selectors, revision, ...entry }: RegistrationEntry) {
  return {
    ...entry,
    selectors: selectors.map(formatSelector),
    x509SvidTtlSeconds: x509SvidTtl / seconds(1),
    jwtSvidTtlSeconds: jwtSvidTtl / seconds(1),
    revision: Number(revision),
    createdAt: formatInstant(createdAt),
    ...(expiresAt === undefined ? {} : { expiresAt: formatInstant(expiresAt) }),
  }
}

/** @throws Failure `json.*`, `usage.entry-file`: which entry, which field, and what was expected there */
export function readEntryFile(text: string): readonly EntryDraft[] {
  const { entries, ...others } = parseJsonObject(text, { maxLength: maxFile, bigIntegers: true })
  const [stranger] = Object.keys(others)
  if (stranger !== undefined) throw refused(`\`${stranger.slice(0, 80)}\` is not expected beside \`entries\``)
  const read = z.array(entryInFile).max(maxEntries).safeParse(entries)
  if (read.success) return read.data
  const [issue] = read.error.issues
  throw refused(
    `\`entries${issue!.path.map((key) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`)).join('')}\`: ${issue!.message}`,
  )
}

/** @throws Failure `json.*`, `subject.*` */
export function readSubject(text: string): SubjectAttributes | undefined {
  const written = parseJsonObject(text, { maxLength: maxSubject })
  for (const [name, value] of Object.entries(written)) {
    if (typeof value !== 'string')
      throw new Failure('invalid_argument', 'subject.text', { public: `\`${name.slice(0, 80)}\` is not a text` })
  }
  return parseSubject(written as Readonly<Record<string, string>>)
}

/** An object inside a file, read by what reads it alone. */
const object = <T>(read: (text: string) => T) =>
  z
    .custom<JsonValue>((value) => isJsonObject(value as JsonValue), { error: 'expected an object' })
    .transform((value, context) => {
      try {
        return read(formatJson(value))
      } catch (error) {
        context.addIssue({ code: 'custom', message: Failure.from(error).message })
        return z.NEVER
      }
    })

const moment = parsed((text) => {
  const at = parseInstant(text)
  if (at === null || at === undefined)
    throw new Failure('invalid_argument', 'usage.wrong', { public: `\`${text.slice(0, 60)}\` is no moment in RFC 3339` })
  return at
})

const ttl = z
  .int()
  .min(0)
  .default(0)
  .transform((value) => seconds(value))

const entryInFile = z
  .strictObject({
    id: z.string().optional(),
    spiffeId: parsed(parseSpiffeId),
    parentId: parsed(parseSpiffeId),
    selectors: z.array(parsed(parseSelector)),
    x509SvidTtlSeconds: ttl,
    jwtSvidTtlSeconds: ttl,
    federatesWith: z.array(parsed(parseTrustDomain)).default([]),
    admin: z.boolean().default(false),
    downstream: z.boolean().default(false),
    storeSvid: z.boolean().default(false),
    expiresAt: moment.optional(),
    dnsNames: z.array(z.string()).default([]),
    subject: object<SubjectAttributes | undefined>(readSubject).optional(),
    claims: object<AddedClaims | undefined>(readClaims).optional(),
    hint: z.string().default(''),
    disableX509SvidPrefetch: z.boolean().default(false),
    jwtSvidIncludeJti: z.boolean().default(false),
    // What the registry decides itself may stand in the file, and decides nothing.
    revision: z.int().optional(),
    createdAt: z.string().optional(),
  })
  .transform(
    ({ x509SvidTtlSeconds, jwtSvidTtlSeconds, id, expiresAt, revision: _revision, createdAt: _createdAt, ...entry }): EntryDraft => ({
      ...entry,
      ...(id === undefined ? {} : { id }),
      ...(expiresAt === undefined ? {} : { expiresAt }),
      x509SvidTtl: x509SvidTtlSeconds,
      jwtSvidTtl: jwtSvidTtlSeconds,
    }),
  )

function refused(text: string): Failure {
  return new Failure('invalid_argument', 'usage.entry-file', { public: text })
}

const maxFile = 32 * 1024 * 1024
const maxSubject = 8 * 1024
/** The strict reader takes lists of a thousand. */
const maxEntries = 1000
