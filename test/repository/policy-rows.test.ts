import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { rows } from '../e2e/policy-rows.ts'

const text = readFileSync(new URL('../../docs/authorization.md', import.meta.url), 'utf8')
const section = (number: string): string => text.slice(text.indexOf(`### ${number} `)).split(/\n(?=##)/, 1)[0]!
const names = rows.map(({ name }) => name)
const missing = (expected: readonly string[], isIn: (name: string, one: string) => boolean): string[] =>
  expected.filter((one) => !names.some((name) => isIn(name, one)))

test('every field of a source or an operation has a row that a real Envoy judges, and so has its negation', () => {
  const fields = [...section('1.2').matchAll(/^\| ([a-z]\w+) \/ not/gim)].map(([, field]) => field!)
  expect(fields.length).toBeGreaterThanOrEqual(11)
  const negated = fields.map((field) => `not${field[0]!.toUpperCase()}${field.slice(1)}`)
  expect(missing([...fields, ...negated], (name, field) => name.startsWith(`1.2 ${field} `))).toEqual([])
})

test('every key of a condition has a row that a real Envoy judges, and so has its negation', () => {
  const listed = /`when` keys, complete \(15\)[^:]*: ([^]*?)\.\n/.exec(section('1.2'))![1]!
  const keys = listed.split(/,\s+/).map((key) => key.replace(/[[ (].*$/s, '').replace(/\.<f>$/, ''))
  expect(keys).toHaveLength(15)
  expect(missing(keys, (name, key) => name.startsWith(`1.2 when ${key}`) && !name.includes('notValues'))).toEqual([])
  expect(missing(keys, (name, key) => name.startsWith(`1.2 when ${key}`) && name.includes('notValues'))).toEqual([])
})

test('every part of section 1 that says what is decided has rows', () => {
  const parts = [...text.matchAll(/^### (1\.\d) /gm)].map(([, part]) => part!)
  expect(parts).toHaveLength(9)
  expect(missing(parts, (name, part) => name.startsWith(`${part} `))).toEqual([])
})
