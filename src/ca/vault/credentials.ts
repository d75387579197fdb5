/** Files that prove who we are, read anew at each login (V-12). */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { Failure } from '../../kernel/failure.ts'
import { isMissing } from '../../kernel/files.ts'

/**
 * The text of a file. Where it is secret only its owner may read it; others may never change it, for then they would say who we are.
 * @throws Failure `vault.file-missing`, `vault.loose-permissions`, `vault.file-too-large`
 */
export async function readCredential(path: string, { secret }: { readonly secret: boolean }): Promise<string> {
  try {
    // Without O_NONBLOCK a pipe would be waited for.
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const info = await file.stat()
    if (!info.isFile()) throw refused('file-missing', `\`${path}\` is not a file`)
    const loose = secret ? 0o077 : 0o022
    if ((info.mode & loose) !== 0) {
      const mode = (info.mode & 0o777).toString(8).padStart(4, '0')
      throw refused(
        'loose-permissions',
        `\`${path}\` can be ${secret ? 'read' : 'changed'} by others (mode ${mode}): run \`chmod ${secret ? '600' : 'go-w'} ${path}\``,
      )
    }
    if (info.size > maxBytes) throw refused('file-too-large', `\`${path}\` has ${info.size} bytes: at most ${maxBytes} are expected`)
    return await file.readFile('utf8')
  } catch (error) {
    if (isMissing(error)) throw refused('file-missing', `there is no file \`${path}\``)
    throw error
  }
}

const refused = (what: string, text: string): Failure => new Failure('failed_precondition', `vault.${what}`, { public: text })
const maxBytes = 256 * 1024
