import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { rules } from '../../src/conformance/rules.ts'
import { repository } from '../../tools/peers/source.ts'

const listed = readFileSync(join(repository, 'docs/rules/spiffe.md'), 'utf8').matchAll(/^\d+\. ([A-Z]+-\d+) ([MNSDy*]?)/gm)

test('every rule of docs/rules/spiffe.md is here exactly once, and in its order', () => {
  const ids = [...listed].map(([, id]) => id)
  expect(ids).toHaveLength(208)
  expect(rules.map(({ id }) => id)).toEqual(ids)
})

test('every rule can be seen, or says why not', () => {
  for (const { id, judges, asks, unseen, notBuilt } of rules) {
    const ways = [judges !== undefined || asks !== undefined, unseen !== undefined, notBuilt !== undefined]
    expect([id, ways.includes(true)]).toEqual([id, true])
    // What nothing on a socket shows may still show in a document, and nothing else may be both.
    expect([id, asks !== undefined && (unseen !== undefined || notBuilt !== undefined)]).toEqual([id, false])
  }
})

test('every rule is one sentence: lower case, no full stop', () => {
  for (const { id, says } of rules) expect([id, says]).toEqual([id, expect.stringMatching(/^(?:[a-z`]|IDs|TLS|JWT|WIT).*[^.]$/)])
})
