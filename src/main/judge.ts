/** The judge of the SPIFFE rules, in the words that commands use. It is imported when it is asked for: most commands are not. */
import type { Judge } from '../cli/context.ts'
import { systemClock } from '../kernel/clock.ts'
import { endpointOf } from '../workload-client/endpoint.ts'

export const judge: Judge = {
  async conformance({ address, selection, audience, timeout, progress }, stop) {
    const place = endpointOf(address)
    const [{ runConformance }, { selectRules }, report] = await Promise.all([
      import('../conformance/run.ts'),
      import('../conformance/rules.ts'),
      import('../conformance/report.ts'),
    ])
    const selected = selectRules(selection)
    const outcomes = await runConformance({
      place,
      audience,
      timeout,
      selected,
      clock: systemClock,
      stop,
      progress: ({ id, says }, index, count) => progress(`${index + 1}/${count} ${id} ${says}\n`),
    })
    return {
      value: report.jsonReport(outcomes),
      text: report.textReport(outcomes),
      junit: report.junitReport(outcomes),
      ok: report.isConformant(outcomes),
    }
  },

  async inspect({ input, form, ...looking }) {
    const { inspect } = await import('../conformance/inspect/inspect.ts')
    return inspect(input, form, looking)
  },
}
