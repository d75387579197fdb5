/** Policies as the programs need them from the disk: those about our own API that the server comes with, and whose signatures count. */
import { createPublicKey, type KeyObject } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Failure } from '../kernel/failure.ts'
import type { PolicyDocument } from '../policy/policy-set.ts'

/** Every YAML file in `policies/server-api`, in order of name. */
export async function ownApiPolicies(): Promise<readonly PolicyDocument[]> {
  const directory = fileURLToPath(new URL('../../policies/server-api/', import.meta.url))
  const names = (await readdir(directory)).filter((name) => name.endsWith('.yaml')).sort()
  return Promise.all(names.map(async (name) => ({ name: `server-api/${name}`, text: await readFile(join(directory, name), 'utf8') })))
}

/** @throws Failure `config.invalid` for a file that is no public key */
export async function trustedPolicyKeys(paths: readonly string[]): Promise<readonly KeyObject[]> {
  return Promise.all(paths.map(trustedKey))
}

async function trustedKey(path: string): Promise<KeyObject> {
  try {
    return createPublicKey(await readFile(path))
  } catch (cause) {
    throw new Failure('invalid_argument', 'config.invalid', {
      public: `\`policies.trustedKeys\`: \`${path}\` holds no public key that can be read: expected PEM`,
      cause,
    })
  }
}
