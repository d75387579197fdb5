import fc from 'fast-check'
import { expect, test } from 'vitest'
import { filtersAllow } from '../../src/authz/replay.ts'
import { coveringRequests } from '../../src/policy/analysis/cover.ts'
import { diffSets } from '../../src/policy/analysis/diff.ts'
import { namedDestination } from '../../src/policy/analysis/destinations.ts'
import { compileFor, type CompiledPolicies } from '../../src/policy/compile.ts'
import { decide } from '../../src/policy/evaluate.ts'
import { checkPolicies, parsePolicySet } from '../../src/policy/language.ts'
import type { PolicyMode } from '../../src/policy/policy-set.ts'
import type { PolicyRequest } from '../../src/policy/request.ts'
import { trustDomainOf } from '../../src/spiffe/id.ts'
import { policiesIn } from '../policy/analysis/arbitrary.ts'
import { documents, noon, orders, selectors } from '../policy/make.ts'

const facts = { ...orders, selectors: selectors('k8s:ns:shop', 'k8s:pod-label:app:orders') }
const isValid = (texts: readonly string[], mode: PolicyMode) => checkPolicies(documents(texts), { mode }).problems.length === 0

const inProxy = (policies: CompiledPolicies, request: PolicyRequest): boolean | undefined =>
  filtersAllow(policies, request, trustDomainOf(facts.spiffeIds[0]!))

test.each<PolicyMode>(['strict', 'istio'])('in %s mode the compiled rules decide covering requests, and every witness of a difference, as the evaluator does (R-25)', (mode) => {
  let compared = 0
  fc.assert(
    fc.property(policiesIn(mode), policiesIn(mode), (old, next) => {
      fc.pre(isValid(old, mode) && isValid(next, mode))
      const sets = [old, next].map((texts) => parsePolicySet(documents(texts), { mode }))
      const [before, after] = sets.map((set) => compileFor(set, facts, { at: noon }))
      const { destinations } = diffSets(sets[0]!, sets[1]!, { at: noon, most: 5, destinations: [namedDestination(facts)] })
      const witnesses = destinations.flatMap(({ newlyAllowed, newlyDenied }) => [...newlyAllowed, ...newlyDenied].map(({ witness }) => witness.request))
      for (const policies of [before!, after!]) {
        for (const request of [...coveringRequests(policies, { most: 60 }).map((one) => one.request), ...witnesses]) {
          const proxy = inProxy(policies, request)
          if (proxy === undefined) continue
          compared++
          expect({ request, proxy }).toEqual({ request, proxy: decide(policies, request).allowed })
        }
      }
    }),
    { numRuns: 10, endOnFailure: true },
  )
  expect(compared).toBeGreaterThan(300)
  console.log(`covering requests and witnesses in ${mode} mode: ${compared} compared, 0 disagreements`)
}, 30_000) // prettier-ignore
