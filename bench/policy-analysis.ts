/** What a change of policies means, worked out for every request there could be. */
import { systemClock } from '../src/kernel/clock.ts'
import { diffSets } from '../src/policy/analysis/diff.ts'
import { parsePolicySet } from '../src/policy/language.ts'
import { parseSpiffeId } from '../src/spiffe/id.ts'
import { type Bench, demand, type Effort, type Figure, figureOf, repeat, residentMb } from './harness.ts'
import { makePolicies } from './rules.ts'

export const policyAnalysis: readonly Bench[] = [1000, 5000].map((rules) => ({
  name: `policy.diff${rules}`,
  about: `two sets of ${rules} rules for one workload compared: two rules widened, one moved to another caller`,
  run: (effort) => diffAmong(rules, effort),
}))

async function diffAmong(rules: number, effort: Effort): Promise<Figure> {
  const documents = makePolicies(parseSpiffeId('spiffe://bench.test/ns/shop/sa/orders'), rules)
  const [first, ...others] = documents
  const changed = first!.text
    .replace('items/{*}', '{**}')
    .replace('methods: [GET]', 'methods: [GET, DELETE]')
    .replace('caller-5', 'caller-99')
  const [before, after] = [documents, [{ ...first!, text: changed }, ...others]].map((one) => parsePolicySet(one))
  const at = systemClock.now()
  const compare = () => diffSets(before!, after!, { at })
  const { answer, destinations } = compare()
  demand(answer === 'different' && destinations.length === 1, `the answer is ${answer}, at ${destinations.length} workloads`)
  const { newlyAllowed, newlyDenied } = destinations[0]!
  demand(
    newlyAllowed.length === 3 && newlyDenied.length === 1,
    `${newlyAllowed.length} regions newly allowed, ${newlyDenied.length} denied`,
  )
  // Of one comparison: what a command that answers once needs.
  const rss = await residentMb(process.pid)
  const rate = await repeat(effort, compare)
  return { ...figureOf(rate, 'diffs/s'), ...(rss === undefined ? {} : { rss_mb: rss }) }
}
