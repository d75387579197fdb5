import { spawnSync } from 'node:child_process'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { differenceOf } from '../../../src/policy/analysis/difference.ts'
import { regular } from '../../../src/policy/analysis/regular.ts'
import { toSmt } from '../../../src/policy/analysis/smt.ts'
import { describeWithPeer } from '../../support/peers.ts'
import { compiled, ours } from '../make.ts'

/** Plain texts, all of which are canonical: among them each side looks for a difference. */
const domains = {
  peer: regular('spiffe://[a-z]+(?:/[a-z]+)?(?:/[a-z]+)?'),
  path: regular('/[a-z]*(?:/[a-z]+)?'),
  method: regular('GET|POST|PUT'),
  host: regular('[a-z]+(?:\\.[a-z]+)?(?::[0-9])?'),
}

const some = (...values: readonly string[]) => fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 2 })
const source = fc.oneof(
  some('spiffe://a/b', 'spiffe://a/{*}', 'spiffe://a/b/{**}').map((spiffeIds) => ({ spiffeIds })),
  some('a/*', '*/b').map((notPrincipals) => ({ notPrincipals })),
)
const operation = fc.oneof(
  some('/a', '/a/*', '*b', '/{*}/b').map((paths) => ({ paths })),
  some('/a/b', '/b*').map((notPaths) => ({ notPaths, methods: ['GET'] })),
  some('80', '81').map((ports) => ({ ports, hosts: ['*.org', 'a'] })),
)
const rule = fc.tuple(source, operation).map(([from, to]) => ({ from: [{ source: from }], to: [{ operation: to }] }))
const rules = fc.array(rule, { minLength: 1, maxLength: 2 })
const set = fc
  .tuple(rules, fc.option(rules))
  .map(([allow, deny]) => [ours({ rules: allow }), ...(deny ? [ours({ action: 'DENY', rules: deny }, 'd')] : [])])

describeWithPeer('z3', 'z3', ({ path: z3 }) => {
  const answers = { sat: 0, unsat: 0, unknown: 0 }
  const solve = (script: string): keyof typeof answers => {
    const { stdout } = spawnSync(z3, ['-in', '-T:4'], { input: script, encoding: 'utf8', timeout: 10_000 })
    const answer = stdout.trim().split('\n')[0]
    return answer === 'sat' || answer === 'unsat' ? answer : 'unknown'
  }

  test('agrees about whether two sets differ, wherever it comes to an answer', () => {
    fc.assert(
      fc.property(set, fc.oneof({ weight: 2, arbitrary: set }, { weight: 1, arbitrary: fc.constant(undefined) }), (old, other) => {
        // Without a second set, the first with its first policy said twice.
        const next = other ?? [...old, old[0]!.replace('"name":"p"', '"name":"twice"')]
        const [before, after] = [compiled(old), compiled(next)]
        const { newlyAllowed, newlyDenied } = differenceOf(before, after)
        const answer = solve(toSmt(before, after, domains)!)
        answers[answer]++
        const ours_ = newlyAllowed.length + newlyDenied.length > 0 ? 'sat' : 'unsat'
        if (answer !== 'unknown') expect({ old, next, answer }).toEqual({ old, next, answer: ours_ })
      }),
      { numRuns: 12, endOnFailure: true },
    )
    console.log(`z3: ${answers.sat} differences, ${answers.unsat} equivalences, ${answers.unknown} without an answer, 0 disagreements`)
    expect(answers.sat + answers.unsat).toBeGreaterThan(0)
  }, 70_000)
})
