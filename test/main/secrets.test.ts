import { chmodSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Failure, tellChain } from '../../src/kernel/failure.ts'
import { systemSecrets } from '../../src/main/config/secrets.ts'

const canary = 'canary-5b1e'
let directory: string
beforeAll(() => void (directory = mkdtempSync(join(tmpdir(), 'vs-'))))
afterAll(() => rmSync(directory, { recursive: true }))

const file = (name: string, content: string, mode = 0o600): string => {
  const path = join(directory, name)
  writeFileSync(path, content)
  chmodSync(path, mode)
  return path
}
const refusal = (reference: Parameters<typeof systemSecrets.read>[0]): Promise<Failure> =>
  systemSecrets.read(reference).then(
    () => Promise.reject(new Error('it was accepted')),
    (error: unknown) => error as Failure,
  )

describe('a secret', () => {
  test.each([0o644, 0o640, 0o604, 0o660])(
    'in a file of mode %o, that others can use, is refused, with the command that helps',
    async (mode) => {
      const path = file(`loose-${mode}`, canary, mode)
      const failure = await refusal({ file: path })
      expect(failure.reason).toBe('secret.loose-permissions')
      expect(failure.message).toContain(`run \`chmod 600 ${path}\``)
      expect(JSON.stringify([tellChain(failure), failure.internal])).not.toContain(canary)
    },
  )

  test('that is not there, or empty, is refused with the place where it was expected', async () => {
    const missing = join(directory, 'missing')
    expect(await refusal({ file: missing })).toMatchObject({
      reason: 'secret.missing',
      message: `the file \`${missing}\` has no value: a secret is expected there`,
    })
    expect((await refusal({ file: file('empty', '\n') })).reason).toBe('secret.missing')
    expect(await refusal({ env: 'VIDIMUS_TEST_NOT_SET' })).toMatchObject({
      reason: 'secret.missing',
      message: 'the environment variable `VIDIMUS_TEST_NOT_SET` has no value: a secret is expected there',
    })
  })

  test('that is a directory or far too long is refused', async () => {
    const folder = await refusal({ file: directory })
    expect([folder.reason, folder.message]).toEqual(['secret.not-a-file', `\`${directory}\` is not a file: a secret is expected there`])
    expect((await refusal({ file: file('long', 'x'.repeat(64 * 1024 + 1)) })).reason).toBe('secret.too-long')
  })

  test('V-12 is read anew each time, through the link that a secret store swaps', async () => {
    const link = join(directory, 'link')
    symlinkSync(file('first', 'one\n'), link)
    expect((await systemSecrets.read({ file: link })).reveal()).toBe('one')
    rmSync(link)
    symlinkSync(file('second', 'two\r\n'), link)
    expect((await systemSecrets.read({ file: link })).reveal()).toBe('two')
    rmSync(link)
    symlinkSync(file('third', canary, 0o644), link)
    expect((await refusal({ file: link })).reason).toBe('secret.loose-permissions')
  })

  test('of the environment is read as it is', async () => {
    process.env['VIDIMUS_TEST_SECRET'] = ` ${canary}`
    try {
      expect((await systemSecrets.read({ env: 'VIDIMUS_TEST_SECRET' })).reveal()).toBe(` ${canary}`)
    } finally {
      delete process.env['VIDIMUS_TEST_SECRET']
    }
  })
})
