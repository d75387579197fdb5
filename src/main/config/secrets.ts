/** Resolves references to secrets. The only place that reads the environment or a file for one. */
import { constants, type Stats } from 'node:fs'
import { open } from 'node:fs/promises'
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

/** Looks at the file that it reads, also where a link leads to it. A trailing newline is not part of a secret. */
async function fromFile(path: string): Promise<string | undefined> {
  try {
    // Without O_NONBLOCK a pipe would be waited for.
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    check(path, await file.stat())
    return (await file.readFile('utf8')).replace(/\r?\n$/, '')
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}

function check(path: string, info: Stats): void {
  if (!info.isFile()) throw refused('not-a-file', `\`${path}\` is not a file: a secret is expected there`)
  const mode = info.mode & 0o777
  if ((mode & 0o077) !== 0) {
    throw refused(
      'loose-permissions',
      `\`${path}\` can be read by others (mode ${mode.toString(8).padStart(4, '0')}): expected 0600; run \`chmod 600 ${path}\``,
    )
  }
  if (info.size > maxSecretBytes) throw refused('too-long', `\`${path}\` has ${info.size} bytes: a secret has at most ${maxSecretBytes}`)
}

const refused = (what: string, text: string): Failure => new Failure('failed_precondition', `secret.${what}`, { public: text })

const maxSecretBytes = 64 * 1024
