/** Reads an audit trail from the disk, line by line, whatever its size. */
import { createReadStream } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { noHash } from '../audit/trail.ts'
import { numberOf, rotatedName, TrailCheck, trailFiles } from '../audit/verify.ts'
import type { Auditor, AuditVerdict } from '../cli/context.ts'
import { Failure } from '../kernel/failure.ts'

export const auditor: Auditor = {
  async verify(path, { from = noHash, seen }, stop) {
    const { directory, name } = await placeOf(path)
    const { files, missing } = trailFiles(await readdir(directory), name)
    if (files.length === 0) throw noFile(path)
    if (missing !== undefined) return broken(missing, 0, 'it is missing')
    if (from === noHash && files[0] !== name && files[0] !== rotatedName(name, 1)) {
      return broken(files[0]!, 0, 'the files before it are missing; if they are kept elsewhere, say with --from which hash they end with')
    }
    const check = new TrailCheck({ from, seen })
    for (const file of files) {
      const verdict = await follow(check, join(directory, file), file, stop)
      if (verdict) return verdict
    }
    const [lost] = check.missing
    if (lost !== undefined) return broken(files.at(-1)!, 0, `a line with the hash ${lost} occurred once and is gone`)
    return { whole: true, files: files.length, lines: check.lines, last: check.last }
  },
}

async function placeOf(path: string): Promise<{ readonly directory: string; readonly name: string }> {
  const info = await lstat(path).catch(() => undefined)
  if (info?.isDirectory()) return { directory: path, name: 'audit.log' }
  const [directory, name] = [dirname(path), basename(path)]
  const known = info ? [name] : await readdir(directory).catch(() => [])
  // Between two files there may be no current one.
  if (!known.some((one) => one === name || numberOf(one, name) !== undefined)) throw noFile(path)
  return { directory, name }
}

async function follow(check: TrailCheck, path: string, file: string, stop: AbortSignal): Promise<AuditVerdict | undefined> {
  let number = 0
  let left: Buffer = Buffer.alloc(0)
  for await (const part of createReadStream(path, { signal: stop, highWaterMark: 1024 * 1024 }) as AsyncIterable<Buffer>) {
    const bytes = left.length === 0 ? part : Buffer.concat([left, part])
    let start = 0
    for (let end = bytes.indexOf(newline, start); end !== -1; end = bytes.indexOf(newline, start)) {
      number++
      const line = bytes.subarray(start, end)
      const problem = check.follow(line.toString('utf8'))
      if (problem !== undefined) return broken(file, number, problem)
      start = end + 1
    }
    left = bytes.subarray(start)
    if (left.length > longestLine) return broken(file, number + 1, 'it is not an audit record')
  }
  if (left.length === 0) return undefined
  return broken(file, number + 1, 'it is not finished: a server is just writing it, or it was torn')
}

const broken = (file: string, line: number, problem: string): AuditVerdict => ({ whole: false, file, line, problem })
const noFile = (path: string): Failure =>
  new Failure('invalid_argument', 'usage.no-file', { public: `there is no audit trail in \`${path}\`` })
const newline = 0x0a
const longestLine = 64 * 1024
