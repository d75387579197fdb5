import { createHash } from 'node:crypto'
import { basename, dirname, join } from 'node:path'
import { z } from 'zod'
import { utf8 } from '../../kernel/bytes.ts'
import type { Clock, Instant } from '../../kernel/clock.ts'
import { days, parseDuration } from '../../kernel/duration.ts'
import { Failure } from '../../kernel/failure.ts'
import type { AppendFile, Files } from '../../kernel/files.ts'
import { auditSink, type AuditSink } from '../trail.ts'
import { numberOf, rotatedName, trailFiles } from '../verify.ts'

/**
 * Appends to a file (mode 0600), one record a line. When it is large or old it is given a number, and another is begun; the chain goes on.
 * What a power cut tore is cut off when it is opened. Nothing is ever removed: that is the operator's to do.
 */
export const file = auditSink({
  kind: 'file',
  config: z.strictObject({
    path: z.string().min(1),
    /** After which another file is begun. */
    maxMebibytes: z.int().min(1).max(1024).default(64),
    /** How long after its beginning, or after a start of the server, another file is begun. */
    maxAge: z
      .string()
      .transform((text, context) => {
        try {
          const age = parseDuration(text)
          if (age >= 60_000 && age <= days(366)) return age
          context.addIssue({ code: 'custom', message: `\`${text}\` is out of range: expected 1m to 366d` })
        } catch (error) {
          context.addIssue({ code: 'custom', message: Failure.from(error).message })
        }
        return z.NEVER
      })
      .prefault('1d'),
  }),
  example: { path: '/var/lib/vidimus/server/audit.log', maxMebibytes: 64, maxAge: '1d' },

  async open({ path, maxMebibytes, maxAge }, { files, clock }) {
    const tail = await files.readTail(path, tailBytes)
    const torn = tail.subarray(tail.lastIndexOf(newline) + 1)
    const current = await files.appendTo(path)
    const keep = current.size - torn.length
    await current[Symbol.asyncDispose]()
    const rotating = new RotatingFile(files, clock, path, maxMebibytes * 1024 * 1024, maxAge, await files.appendTo(path, { keep }))
    return {
      append: (lines) => rotating.append(utf8(`${lines.join('\n')}\n`)),
      last: () => lastLine(files, path),
      repaired: torn.length === 0 ? undefined : { bytes: torn.length, sha256: createHash('sha256').update(torn).digest('hex') },
      [Symbol.asyncDispose]: () => rotating[Symbol.asyncDispose](),
    } satisfies AuditSink
  },
})

class RotatingFile implements AsyncDisposable {
  readonly #files: Files
  readonly #clock: Clock
  readonly #path: string
  readonly #maxBytes: number
  readonly #maxAge: number
  #file: AppendFile
  #begun: Instant

  constructor(files: Files, clock: Clock, path: string, maxBytes: number, maxAge: number, file: AppendFile) {
    this.#files = files
    this.#clock = clock
    this.#path = path
    this.#maxBytes = maxBytes
    this.#maxAge = maxAge
    this.#file = file
    this.#begun = clock.now()
  }

  async append(content: Uint8Array): Promise<void> {
    if (this.#isDue()) await this.#rotate()
    await this.#file.append(content)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file[Symbol.asyncDispose]()
  }

  #isDue(): boolean {
    if (this.#file.size === 0) return false
    return this.#file.size >= this.#maxBytes || this.#clock.now() - this.#begun >= this.#maxAge
  }

  /** What ends between the two steps leaves no current file: the next try, or the next start, begins one. */
  async #rotate(): Promise<void> {
    const [directory, name] = [dirname(this.#path), basename(this.#path)]
    const names = await this.#files.list(directory)
    const number = names.reduce((latest, one) => Math.max(latest, numberOf(one, name) ?? 0), 0) + 1
    if (names.includes(name)) await this.#files.rename(this.#path, join(directory, rotatedName(name, number)))
    const next = await this.#files.appendTo(this.#path)
    await this.#file[Symbol.asyncDispose]()
    this.#file = next
    this.#begun = this.#clock.now()
  }
}

/** Of the newest file that holds one. */
async function lastLine(files: Files, path: string): Promise<string | undefined> {
  const [directory, name] = [dirname(path), basename(path)]
  for (const one of trailFiles(await files.list(directory), name).files.toReversed()) {
    const tail = await files.readTail(join(directory, one), tailBytes)
    const end = tail.lastIndexOf(newline)
    if (end >= 0) return Buffer.from(tail.subarray(tail.subarray(0, end).lastIndexOf(newline) + 1, end)).toString('utf8')
  }
  return undefined
}

const newline = 0x0a
/** Longer than any record. */
const tailBytes = 64 * 1024
