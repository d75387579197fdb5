/** Files as commands need them. */
import { lstat, mkdir, readdir, writeFile } from 'node:fs/promises'
import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { dirname, join } from 'node:path'
import type { Disk } from '../cli/context.ts'
import { fromUtf8 } from '../kernel/bytes.ts'
import { Failure } from '../kernel/failure.ts'
import { systemFiles } from '../kernel/files.ts'

export const systemDisk: Disk = {
  read: async (path) => fromUtf8(await systemDisk.readBytes(path)),

  async readBytes(path) {
    const content = path === '-' ? await standardInput() : await systemFiles.read(path)
    if (content) return content
    throw noFile(path)
  },

  async *lines(path) {
    if (path !== '-' && !(await lstat(path).catch(() => undefined))) throw noFile(path)
    const input = path === '-' ? process.stdin : createReadStream(path)
    yield* createInterface({ input, crlfDelay: Infinity })
  },

  async yamlFiles(paths) {
    const files: string[] = []
    for (const path of paths) files.push(...(await yamlUnder(path)))
    if (files.length === 0)
      throw new Failure('invalid_argument', 'usage.no-file', { public: `there is no .yaml or .yml file under \`${paths.join('`, `')}\`` })
    return Promise.all(files.map(async (name) => ({ name, text: await systemDisk.read(name) })))
  },

  async write(path, content, secret) {
    await mkdir(dirname(path), { recursive: true })
    if (secret) await systemFiles.writeAtomically(path, Buffer.from(content))
    else await writeFile(path, content, { mode: 0o644 })
  },
}

/** The file itself, or the YAML files of a directory and of those below it, in order of name. */
async function yamlUnder(path: string): Promise<string[]> {
  const info = await lstat(path).catch(() => undefined)
  if (!info) throw noFile(path)
  if (!info.isDirectory()) return [path]
  const names = (await readdir(path, { recursive: true })).filter((name) => /\.ya?ml$/.test(name)).sort()
  return names.map((name) => join(path, name))
}

const noFile = (path: string): Failure => new Failure('invalid_argument', 'usage.no-file', { public: `\`${path}\` does not exist` })

async function standardInput(): Promise<Uint8Array> {
  const parts: Buffer[] = []
  for await (const part of process.stdin) parts.push(part as Buffer)
  return Buffer.concat(parts)
}
