import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { parseAllDocuments } from 'yaml'
import { z } from 'zod'
import { languageSchema } from '../../src/policy/schema.ts'
import { istios, ours, web } from './make.ts'

const schema = z.fromJSONSchema(languageSchema() as Parameters<typeof z.fromJSONSchema>[0])
const isValid = (value: unknown) => schema.safeParse(value).success
const folder = new URL('../../policies/', import.meta.url)

describe('the JSON Schema for editors', () => {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.yaml'))

  test('there are policies to try it on', () => expect(files.length).toBeGreaterThan(20))

  test.each(files)('knows %s', (name) => {
    for (const document of parseAllDocuments(readFileSync(new URL(name, folder), 'utf8')))
      expect([isValid(document.toJS()), name]).toEqual([true, name])
  })

  const one = (spec: object): unknown => JSON.parse(ours(spec))
  const suite = (more: object) => ({ apiVersion: 'vidimus.dev/v1', kind: 'PolicyTest', workloads: { a: { spiffeIds: [web] } }, ...more })
  const matrix = (verdicts: object) => suite({ matrix: [{ workload: 'a', requests: ['r'], verdicts }] })
  test.each<[string, unknown]>([
    ['a version that is none', { ...(one({}) as object), apiVersion: 'vidimus.dev/v2' }],
    ['a kind that is none', { ...(one({}) as object), kind: 'Policy' }],
    ['a policy without a name', { ...(one({}) as object), metadata: {} }],
    ['an unknown key', one({ rule: [] })],
    ['an action that is none', one({ action: 'allow' })],
    ['a text where a list belongs', one({ rules: [{ to: [{ operation: { paths: '/a' } }] }] })],
    ['an empty list of values', one({ rules: [{ to: [{ operation: { paths: [] } }] }] })],
    ['an empty `from`', one({ rules: [{ from: [] }] })],
    ['a misspelt field', one({ rules: [{ to: [{ operation: { method: ['GET'] } }] }] })],
    ['a number where a text belongs', one({ rules: [{ to: [{ operation: { ports: [80] } }] }] })],
    ['a condition without a key', one({ rules: [{ when: [{ values: ['a'] }] }] })],
    ["our fields in Istio's kind", JSON.parse(istios({ rules: [{ from: [{ source: { spiffeIds: [web] } }] }] }))],
    ["a condition in CEL in Istio's kind", JSON.parse(istios({ rules: [{ condition: 'connection.mtls' }] }))],
    ['a verdict that is none', suite({ cases: [{ name: 'a', workload: 'a', expect: 'allow' }] })],
    ['a case with an unknown key', suite({ cases: [{ name: 'a', workload: 'a', expect: 'denied', verb: 'GET' }] })],
    ['a cell that is no verdict', matrix({ web: ['yes'] })],
    ['a row that is no list', matrix({ web: 'denied' })],
    ['a fixture of an unknown kind', suite({ fixtures: { users: {} } })],
  ])('refuses %s', (_, value) => expect(isValid(value)).toBe(false))

  test('takes a matrix that is right', () => expect(isValid(matrix({ web: ['denied'] }))).toBe(true))
})
