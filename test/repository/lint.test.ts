import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { repository } from '../../tools/peers/source.ts'
import { run } from '../../tools/run.ts'

const wrong: readonly (readonly [file: string, source: string, rule: string])[] = [
  ['src/ca/now.ts', 'export const now = () => Date.now()', 'no-restricted-globals'],
  ['src/ca/moment.ts', 'export const moment = () => new Date()', 'no-restricted-globals'],
  ['src/agent/waits.ts', 'export const wait = (done: () => void) => setTimeout(done, 1)', 'no-restricted-globals'],
  ['src/agent/rests.ts', `export { setTimeout } from 'node:timers/promises'`, 'no-restricted-imports'],
  ['src/cli/says.ts', `export const say = () => console.log('x')`, 'no-restricted-globals'],
  ['src/cli/reads.ts', 'export const home = () => process.env', 'no-restricted-globals'],
  ['src/ca/asks.ts', `export const ask = () => fetch('http://x')`, 'no-restricted-globals'],
  ['src/ca/chance.ts', 'export const chance = () => Math.random()', 'no-restricted-properties'],
  ['src/ca/serial.ts', `import { randomBytes } from 'node:crypto'\nexport const serial = () => randomBytes(16)`, 'no-restricted-imports'],
  ['src/ca/around.ts', 'export const around = () => globalThis.Date.now()', 'no-restricted-properties'],
  ['src/ca/nameless.ts', 'export default 1', 'no-default-export'],
  ['src/ca/floats.ts', 'const later = async () => 1\nexport const go = () => { later() }', 'no-floating-promises'],
  ['src/ca/any.ts', 'export const any = (x: any) => x', 'no-explicit-any'],
  ['src/ca/half.ts', `export const half = (x: 'a' | 'b') => { switch (x) { case 'a': return 1 } return 2 }`, 'switch-exhaustiveness-check'],
  ['test/ca/alone.test.ts', `import { test } from 'vitest'\ntest.only('x', () => {})`, 'no-focused-tests'],
]

const right: Readonly<Record<string, string>> = {
  'src/kernel/clock.ts': 'export const now = () => Date.now()',
  'src/kernel/random.ts': `import { randomBytes } from 'node:crypto'\nexport const bytes = (n: number) => randomBytes(n)`,
  'src/main/process.ts': 'export const args = () => process.argv',
  'test/ca/now.test.ts': `import { expect, test } from 'vitest'\ntest('x', () => expect(Date.now()).toBeGreaterThan(1))`,
}

interface Finding {
  readonly filename: string
  readonly code: string
}

describe('the linter', () => {
  let folder: string
  let findings: readonly Finding[]

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vd-lint-'))
    for (const file of ['.oxlintrc.json', 'tsconfig.json', 'package.json']) await cp(join(repository, file), join(folder, file))
    await symlink(join(repository, 'node_modules'), join(folder, 'node_modules'))
    for (const [file, source] of [...wrong, ...Object.entries(right)]) {
      await mkdir(dirname(join(folder, file)), { recursive: true })
      await writeFile(join(folder, file), `${source}\n`)
    }
    const { stdout } = await run(join(repository, 'node_modules', '.bin', 'oxlint'), ['--type-aware', '-f', 'json', 'src', 'test'], {
      cwd: folder,
      deadlineMs: 50_000,
    })
    findings = (JSON.parse(stdout) as { diagnostics: readonly Finding[] }).diagnostics
  }, 60_000)
  afterAll(() => rm(folder, { recursive: true, force: true }))

  test.each(wrong)('refuses %s', (file, _source, rule) => {
    expect(findings.filter(({ filename }) => filename === file).map(({ code }) => code)).toContainEqual(
      expect.stringContaining(`(${rule})`),
    )
  })

  test.each(Object.keys(right))('accepts %s', (file) => {
    expect(findings.filter(({ filename }) => filename === file)).toEqual([])
  })
})
