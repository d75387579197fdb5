import { describe, expect, test } from 'vitest'
import { type Outcome, tellVerdict } from '../../src/conformance/report.ts'
import { rules } from '../../src/conformance/rules.ts'
import { runConformance } from '../../src/conformance/run.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { seconds } from '../../src/kernel/duration.ts'
import { BrokenWorkloadApi, type Defect } from './broken-workload-api.ts'
import { defects } from './defects.ts'

const seen = rules.filter(({ unseen, notBuilt }) => unseen === undefined && notBuilt === undefined)

async function outcomesOf(defect: Defect): Promise<readonly Outcome[]> {
  await using api = await BrokenWorkloadApi.start(defect)
  const stop = AbortSignal.timeout(60_000)
  return await runConformance({
    place: { path: api.socket },
    audience: 'conformance',
    timeout: Object.values(defect.methods ?? {}).includes('silent') ? seconds(2) : seconds(10),
    clock: systemClock,
    stop,
  })
}

const brokenIn = (outcomes: readonly Outcome[]) =>
  outcomes.filter(({ verdict }) => verdict === 'broken').map((outcome) => `${outcome.rule.id} ${tellVerdict(outcome)}`)

describe.concurrent('the suite names exactly the rule that is broken', () => {
  test('every rule that it can see has a defect', () => {
    expect(Object.keys(defects)).toEqual(seen.map(({ id }) => id))
  })

  const cases = Object.entries(defects).flatMap(([id, list]) =>
    list.map((defect, index) => [id.replace('-', ' '), index + 1, id, defect] as const),
  )
  test.each(cases)(
    'of %s, by defect %i',
    async (_name, _index, id, defect) => {
      const broken = brokenIn(await outcomesOf(defect))
      expect(broken).toEqual([expect.stringMatching(new RegExp(`^${id} broken: expected .+, found .+`))])
    },
    30_000,
  )
})

test.each([undefined, 20])(
  'a good one keeps every rule that shows, be the connection closed after %s calls',
  async (hangsUpAfter) => {
    const outcomes = await outcomesOf(hangsUpAfter === undefined ? {} : { hangsUpAfter })
    expect(brokenIn(outcomes)).toEqual([])
    const kept = outcomes.filter(({ verdict }) => verdict === 'kept').map(({ rule }) => rule.id)
    // It has identities, so nobody sees what it says to those who have none.
    expect(kept).toEqual(seen.map(({ id }) => id).filter((id) => id !== 'EP-14'))
  },
  30_000,
)
