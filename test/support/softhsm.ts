/** A token of SoftHSM in a folder of the test. One process has one configuration of it, so one folder a test file. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { lastWords, run } from '../../tools/run.ts'

export interface SoftToken {
  /** Path of the PKCS #11 module. */
  readonly module: string
  readonly label: string
  readonly pin: string
  /** Takes the token out of its slot, or puts it in again: SoftHSM keeps each in a folder. */
  readonly directory: string
}

/** `program` is what `npm run peers` provided: `softhsm2-util` with its module beside it. */
export async function softHsm(folder: string, program: string, label = 'vidimus', pin = '648219'): Promise<SoftToken> {
  const directory = join(folder, 'tokens')
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const config = join(folder, 'softhsm2.conf')
  await writeFile(config, `directories.tokendir = ${directory}\nobjectstore.backend = file\nlog.level = ERROR\n`)
  // The module reads it when a thread of ours loads it.
  process.env['SOFTHSM2_CONF'] = config
  const module = join(program, '..', 'libsofthsm2.so')
  const made = await run(program, ['--module', module, '--init-token', '--free', '--label', label, '--pin', pin, '--so-pin', '917364'], {
    deadlineMs: 30_000,
    env: { SOFTHSM2_CONF: config },
  })
  if (made.code !== 0) throw new Error(`softhsm2-util: ${lastWords(made)}`)
  return { module, label, pin, directory }
}
