import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Budget } from '../../../src/policy/analysis/budget.ts'
import { Space } from '../../../src/policy/analysis/space.ts'
import { decide } from '../../../src/policy/evaluate.ts'
import { checkPolicies } from '../../../src/policy/language.ts'
import type { PolicyMode } from '../../../src/policy/policy-set.ts'
import { compiled as compile, documents, orders, selectors } from '../make.ts'
import { policiesIn, requestsIn } from './arbitrary.ts'

const facts = { ...orders, selectors: selectors('k8s:ns:shop', 'k8s:pod-label:app:orders') }
const compiled = (texts: readonly string[], options: { mode: PolicyMode }) => compile(texts, options, facts)
/** Not everything that can be made up goes together. */
const isValid = (texts: readonly string[], mode: PolicyMode) => checkPolicies(documents(texts), { mode }).problems.length === 0

describe.each<PolicyMode>(['strict', 'istio'])('in %s mode', (mode) => {
  test('the diagram of a set gives the verdict of the evaluator for every request, and every request outside of it is refused', () => {
    fc.assert(
      fc.property(policiesIn(mode), fc.array(requestsIn(mode), { minLength: 30, maxLength: 30 }), (texts, list) => {
        fc.pre(isValid(texts, mode))
        const policies = compiled(texts, { mode })
        const space = new Space([policies], new Budget())
        const allowed = space.allowed(policies)
        for (const one of list) {
          const assignment = space.assignmentOf(one)
          const verdict = decide(policies, one)
          const inDiagram = assignment !== undefined && space.diagram.holds(allowed, assignment)
          expect({ one, allowed: inDiagram }).toEqual({ one, allowed: verdict.allowed })
        }
      }),
      { numRuns: 60, endOnFailure: true },
    )
  }, 30_000)

  test('every point of a space is a request that the evaluator decides as the diagram says, and that stands where it was made', () => {
    fc.assert(
      fc.property(policiesIn(mode), policiesIn(mode), fc.array(fc.nat(), { minLength: 40, maxLength: 40 }), (old, next, choices) => {
        fc.pre(isValid(old, mode) && isValid(next, mode))
        const pair = [compiled(old, { mode }), compiled(next, { mode })]
        const space = new Space(pair, new Budget())
        const functions = pair.map((one) => space.allowed(one))
        for (let seed = 0; seed < 40; seed++) {
          const assignment = space.diagram.sizes.map((size, level) => (choices[(level + seed) % 40]! + seed) % size)
          const request = space.request(assignment)
          for (const [index, policies] of pair.entries()) {
            expect({ request, allowed: space.diagram.holds(functions[index]!, assignment) }).toEqual({
              request,
              allowed: decide(policies, request).allowed,
            })
          }
        }
      }),
      { numRuns: 60, endOnFailure: true },
    )
  }, 30_000)
})
