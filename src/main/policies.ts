/** The policies about our own API that the program comes with: data beside the code, read when the server starts. */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { PolicyDocument } from '../policy/policy-set.ts'

/** Every YAML file in `policies/server-api`, in order of name. */
export async function ownApiPolicies(): Promise<readonly PolicyDocument[]> {
  const directory = fileURLToPath(new URL('../../policies/server-api/', import.meta.url))
  const names = (await readdir(directory)).filter((name) => name.endsWith('.yaml')).sort()
  return Promise.all(names.map(async (name) => ({ name: `server-api/${name}`, text: await readFile(join(directory, name), 'utf8') })))
}
