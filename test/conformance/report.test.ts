import { expect, test } from 'vitest'
import { jsonReport, junitReport, type Outcome, textReport } from '../../src/conformance/report.ts'

const rule = (id: string) => ({ id, level: 'must' as const, says: `what ${id} says` })
const outcomes: readonly Outcome[] = [
  { rule: rule('X-1'), verdict: 'kept' },
  { rule: rule('J-11'), verdict: 'broken', expected: 'an expiry', found: 'a <strange> "thing" & none\u001b' },
  { rule: rule('X-2'), verdict: 'not testable', reason: 'a rule for validators' },
  { rule: rule('F-1'), verdict: 'not built', reason: 'federation is not built' },
]

test('as text: a line a rule, the broken ones again with what they say, and the sums', () => {
  expect(textReport(outcomes)).toBe(
    [
      'X-1   kept',
      'J-11  broken: expected an expiry, found a <strange> "thing" & none\u001b',
      'X-2   not testable: a rule for validators',
      'F-1   not built: federation is not built',
      '',
      'broken rules:',
      'J-11  broken: expected an expiry, found a <strange> "thing" & none\u001b',
      '      the rule (must): what J-11 says',
      '',
      '1 kept, 1 broken, 1 not testable from outside, 1 not built\n',
    ].join('\n'),
  )
})

test('as JSON: the sums, and every rule with its verdict', () => {
  expect(jsonReport(outcomes)).toMatchObject({
    kept: 1,
    broken: 1,
    notTestable: 1,
    notBuilt: 1,
    rules: [
      { rule: 'X-1', verdict: 'kept' },
      { rule: 'J-11', level: 'must', found: expect.any(String) as string },
      { reason: 'a rule for validators' },
      {},
    ],
  })
})

test('as JUnit: a suite a section, failures and skipped with their reasons, nothing that is no XML', () => {
  const xml = junitReport(outcomes)
  expect(xml).toContain('<testsuite name="X" tests="2" failures="0" skipped="1">')
  expect(xml).toContain('<testcase classname="spiffe" name="X-1 what X-1 says"/>')
  expect(xml).toContain('<failure message="broken: expected an expiry, found a &#60;strange&#62; &#34;thing&#34; &#38; none?"/>')
  expect(xml).toContain('<skipped message="not built: federation is not built"/>')
})
