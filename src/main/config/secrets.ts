/** Resolves references to secrets. The only place that reads the environment or a file for one. */
import { lstat, readFile } from 'node:fs/promises'
import type { Secrets } from '../../kernel/driver.ts'
import { Failure } from '../../kernel/failure.ts'
import { isMissing } from '../../kernel/files.ts'
import { Secret } from '../../kernel/log.ts'

export const systemSecrets: Secrets = {
  async read(reference) {
    const value = 'env' in reference ? process.env[reference.env] : await fromFile(reference.file)
    if (value === undefined || value === '') {
      const place = 'env' in reference ? `the environment variable \`${reference.env}\`` : `the file \`${reference.file}\``
      throw new Failure('failed_precondition', 'secret.missing', { public: `${place} has no value: a secret is expected there` })
    }
    return new Secret(value)
  },
}

/** A trailing newline is not part of a secret. */
async function fromFile(path: string): Promise<string | undefined> {
  try {
    const info = await lstat(path)
    if ((info.mode & 0o077) !== 0) {
      throw new Failure('failed_precondition', 'secret.loose-permissions', {
        public: `\`${path}\` can be read by others (mode ${(info.mode & 0o777).toString(8).padStart(4, '0')}): expected 0600; run \`chmod 600 ${path}\``,
      })
    }
    if (info.size > maxSecretBytes)
      throw new Failure('failed_precondition', 'secret.too-long', { public: `\`${path}\` is too long for a secret` })
    return (await readFile(path, 'utf8')).replace(/\r?\n$/, '')
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}

const maxSecretBytes = 64 * 1024
