/** Whether an audit trail is as it was written. */
import { noHash, readRecord, sealed } from './trail.ts'

export type TrailVerdict =
  | { readonly whole: true; readonly lines: number; readonly last: string }
  | { readonly whole: false; readonly line: number; readonly problem: string }

/** Follows a chain line by line: each must be what was written, and follow from the one before. */
export class TrailCheck {
  /** The hash of the last line that was good. */
  last: string
  lines = 0
  readonly #sought: Set<string>

  /** `from` is the hash that the first line follows from; `seen` are hashes of lines that must occur. */
  constructor({ from = noHash, seen = [] }: { readonly from?: string; readonly seen?: readonly string[] } = {}) {
    this.last = from
    this.#sought = new Set(seen)
    this.#sought.delete(from)
  }

  /** What is wrong with the next line, or undefined. */
  follow(line: string): string | undefined {
    const record = readRecord(line)
    if (!record) return 'it is not an audit record'
    if (sealed(record.previous, record.body).line !== line) return 'it was changed after it was written'
    if (record.previous !== this.last) return 'it does not follow from the line before: lines were taken out, or put into another order'
    this.last = record.hash
    this.lines++
    this.#sought.delete(record.hash)
    return undefined
  }

  /** Hashes that must occur and have not. */
  get missing(): readonly string[] {
    return [...this.#sought]
  }
}

/** Checks a whole trail. Line numbers begin with 1. */
export function verifyTrail(lines: Iterable<string>): TrailVerdict {
  const check = new TrailCheck()
  for (const line of lines) {
    const problem = check.follow(line)
    if (problem !== undefined) return { whole: false, line: check.lines + 1, problem }
  }
  return { whole: true, lines: check.lines, last: check.last }
}

/** The files of a trail that is kept in `name`, oldest first; a number that is missing is told by its name. */
export function trailFiles(
  names: readonly string[],
  name: string,
): { readonly files: readonly string[]; readonly missing: string | undefined } {
  const numbers = names.flatMap((one) => numberOf(one, name) ?? []).toSorted((a, b) => a - b)
  const gap = numbers.findIndex((number, index) => index > 0 && number !== numbers[index - 1]! + 1)
  const files = [...numbers.map((number) => rotatedName(name, number)), ...(names.includes(name) ? [name] : [])]
  return { files, missing: gap === -1 ? undefined : rotatedName(name, numbers[gap - 1]! + 1) }
}

/** `audit.log` gives way to `audit-00000001.log`. */
export function rotatedName(name: string, number: number): string {
  const [stem, ending] = parts(name)
  return `${stem}-${String(number).padStart(8, '0')}${ending}`
}

/** The number of a file that `name` gave way to. */
export function numberOf(rotated: string, name: string): number | undefined {
  const [stem, ending] = parts(name)
  const digits = rotated.slice(stem.length + 1, rotated.length - ending.length)
  return /^[0-9]{8}$/.test(digits) && rotated === rotatedName(name, Number(digits)) ? Number(digits) : undefined
}

function parts(name: string): readonly [stem: string, ending: string] {
  const dot = name.lastIndexOf('.')
  return dot <= 0 ? [name, ''] : [name.slice(0, dot), name.slice(dot)]
}
