import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

test('the demo ends with exit 0, says what the README says it says, and leaves nothing behind', { timeout: 180_000 }, async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ['examples/demo/demo.ts'], { timeout: 170_000, maxBuffer: 1024 * 1024 })
  const readme = await readFile('README.md', 'utf8')
  expect(outline(stdout)).toEqual(outline(readme))
  expect(stdout).toMatch(/requests over [2-9] rotations, 0 failures/)
  expect(existsSync('.demo')).toBe(false)
})

/** What is the same in every run: the headings, and the table of verdicts. */
function outline(text: string): string[] {
  return text.split('\n').filter((line) => /^== |^(web|orders|report) +\w+ +(GET|POST|DELETE) /.test(line))
}
