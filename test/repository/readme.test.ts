import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { commands } from '../../src/main/command-line.ts'
import { vocabulary } from '../../src/cli/command.ts'
import packageJson from '../../package.json' with { type: 'json' }
import * as library from '../../src/workload-client/vidimus.ts'

const pages = [
  'README.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'docs/architecture.md',
  'docs/conformance.md',
  'docs/policies.md',
  'docs/adding-a-driver.md',
  'docs/metrics.md',
  'deploy/systemd/README.md',
  'deploy/envoy/README.md',
  'policies/examples/README.md',
]
const known = vocabulary(commands)

describe.each(pages)('%s', (page) => {
  test('every link into the repository leads somewhere', async () => {
    const text = await readFile(page, 'utf8')
    const links = [...text.matchAll(/\]\((?!https?:)([^)#]+)\)/g)].map(([, target]) => target!)
    expect(links.filter((target) => !existsSync(join(dirname(page), target)))).toEqual([])
  })

  test('every command that is shown exists, with its flags', async () => {
    const wrong = commandsIn(await readFile(page, 'utf8')).filter((line) => !isKnown(line))
    expect(wrong).toEqual([])
  })
})

test('every script that the pages tell to run exists', async () => {
  const texts = await Promise.all(pages.map((page) => readFile(page, 'utf8')))
  const scripts = new Set(texts.flatMap((text) => [...text.matchAll(/npm run (?:-s )?([a-z][a-z:]*)/g)].map(([, name]) => name!)))
  expect([...scripts].filter((name) => !(name in packageJson.scripts))).toEqual([])
})

test('what the README imports from the library is there', async () => {
  const imported = /import \{ ([^}]+) \} from 'vidimus'/.exec(await readFile('README.md', 'utf8'))?.[1]?.split(', ') ?? []
  expect(imported.length).toBeGreaterThan(0)
  expect(imported.filter((name) => !(name in library))).toEqual([])
})

/** Lines of fenced blocks and inline code that call our command line; what the demo printed is no command. */
function commandsIn(text: string): string[] {
  const fenced = [...text.matchAll(/^```[a-z]*\n([\s\S]*?)^```/gm)].flatMap(([, block]) =>
    block!.includes('\n== ') ? [] : block!.split('\n'),
  )
  const inline = [...text.matchAll(/`(vidimus [^`]+)`/g)].map(([, code]) => code!)
  return [...fenced, ...inline]
    .flatMap((line) => line.replace(/#.*$/, '').split(/&&|\||>/))
    .map((line) => line.trim())
    .filter((line) => /^vidimus [a-z]/.test(line))
}

function isKnown(line: string): boolean {
  const words = line.split(/\s+/).slice(1)
  const one =
    known.find(({ name }) => `${words.join(' ')} `.startsWith(`${name} `)) ??
    known.find(({ name }) => name.startsWith(`${words[0]} `) && words.length === 1)
  return one !== undefined && words.filter((word) => word.startsWith('--')).every((flag) => one.flags.includes(flag.replace(/=.*$/, '')))
}
