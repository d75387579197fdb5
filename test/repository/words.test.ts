import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type LockedPackages, missingBuilds } from '../../tools/complete-lock.ts'
import { repository } from '../../tools/peers/source.ts'

// The patterns are put together from pieces, so that this file does not find itself.
const host = (...labels: readonly string[]) => labels.join('\\.')
const word = (...parts: readonly string[]) => parts.join('')

const forbidden = [
  {
    what: "a path of somebody's machine",
    pattern: new RegExp(`(?:^|[\\s"'\`(=:])/(?:${['work', 'farm', 'home', 'Users'].join('|')})/[\\w.-]`),
  },
  {
    what: 'the host of a package registry',
    pattern: new RegExp(
      [
        host('registry', 'npmjs', 'org'),
        host('registry', 'yarnpkg', 'com'),
        host('pypi', 'org'),
        host('files', 'pythonhosted', 'org'),
        host('proxy', 'golang', 'org'),
        host('index', 'crates', 'io'),
        host('repo1?', 'maven'),
        host('deb', 'debian', 'org'),
      ].join('|'),
    ),
  },
  {
    what: 'a mark of unfinished work',
    pattern: new RegExp(
      `\\b(?:${[word('TO', 'DO'), word('FIX', 'ME'), word('X', 'XX'), word('HA', 'CK')].join('|')})\\b|\\bnot (?:yet )?${word('implem', 'ented')}\\b`,
    ),
  },
  {
    what: 'a test that is switched off or alone',
    pattern: new RegExp(`^\\s*(?:it|test|describe)\\.(?:${['only', 'skip', 'todo'].join('|')})\\(`),
    only: /^test\//,
  },
] as const

// Where such a word is right, and why.
const allowed: Readonly<Record<string, string>> = {
  'test/support/peers.ts': 'skips by name and reason what needs a counterpart that is missing',
  'test/repository/runner.test.ts': 'shows the runner tests that are switched off',
}

const tracked = execFileSync('git', ['-c', 'safe.directory=*', 'ls-files', '-z'], { cwd: repository, encoding: 'utf8', timeout: 10_000 })
  .split('\0')
  .filter(Boolean)

describe('no tracked file', () => {
  test.each(forbidden)('holds $what', (rule) => {
    const paths = tracked.filter((path) => !(path in allowed) && (!('only' in rule) || rule.only.test(path)))
    expect(
      paths.flatMap((path) =>
        linesOf(path).flatMap((line, index) => (rule.pattern.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : [])),
      ),
    ).toEqual([])
  })

  test('is made by a tool from another', () => {
    expect(tracked.filter((path) => /^(?:src\/rpc\/gen|dist|node_modules|\.peers|\.demo|coverage)\//.test(path))).toEqual([])
  })
})

describe('the lock file', () => {
  const { packages } = JSON.parse(readFileSync(join(repository, 'package-lock.json'), 'utf8')) as { packages: LockedPackages }
  const fetched = Object.entries(packages).filter(([path, entry]) => path.includes('node_modules/') && entry.link !== true)

  test('names packages and their hashes, no place to fetch them from', () => {
    expect(fetched.length).toBeGreaterThan(100)
    expect(fetched.filter(([, entry]) => entry.resolved !== undefined).map(([path]) => path)).toEqual([])
    // Builds for platforms that nobody here runs have a version alone.
    expect(
      fetched
        .filter(([, entry]) => entry.integrity === undefined && (entry.optional !== true || entry.os === undefined))
        .map(([path]) => path),
    ).toEqual([])
  })

  test('holds the builds for every platform, without which `npm ci` refuses it: `npm run lock` adds them', () => {
    expect(Object.keys(missingBuilds(packages))).toEqual([])
  })
})

test('every dependency is pinned to one version', () => {
  const read = (path: string) =>
    JSON.parse(readFileSync(join(repository, path), 'utf8')) as Readonly<Record<string, Readonly<Record<string, string>> | undefined>>
  const ranges = ['package.json', 'tools/package.json'].flatMap((path) => {
    const manifest = read(path)
    return ['dependencies', 'devDependencies', 'optionalDependencies'].flatMap((kind) => Object.entries(manifest[kind] ?? {}))
  })
  expect(ranges.length).toBeGreaterThan(20)
  expect(ranges.filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))).toEqual([])
})

test('what CI runs and what people type is the same', () => {
  const ci = readFileSync(join(repository, '.ci/run'), 'utf8')
  const { scripts } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')) as { scripts: Readonly<Record<string, string>> }
  const called = [...ci.matchAll(/npm run (?:--silent )?([\w:]+)/g)].map((match) => match[1] ?? '')
  expect(called).toEqual(['peers', 'check'])
  expect(Object.keys(scripts)).toEqual(expect.arrayContaining([...called, 'test']))
})

function linesOf(path: string): string[] {
  // A file that was just deleted is still in the index.
  try {
    const text = readFileSync(join(repository, path), 'utf8')
    return text.includes('\0') ? [] : text.split('\n')
  } catch {
    return []
  }
}
