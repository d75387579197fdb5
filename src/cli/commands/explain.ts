import { z } from 'zod'
import { command } from '../command.ts'
import { agentAdminSocket, positive, within } from '../flags.ts'

export const explainWorkload = command({
  name: 'explain workload',
  summary: 'say why a process has the identities it has, or none',
  flags: z.strictObject({ ...agentAdminSocket, pid: positive.describe('the process, as the node numbers it').meta({ value: 'pid' }) }),
  examples: ['vidimus explain workload --pid "$(pidof orders)"'],
  async run({ agentAdminSocket, pid }, { openOperatorApi, stop }) {
    await using agent = openOperatorApi(agentAdminSocket)
    const { selectors, considered, verdict } = await agent.explainWorkload(pid, within(stop))
    const entries = considered.map(({ entryId, spiffeId, matches, missingSelectors, note }) =>
      [
        `  ${matches ? 'matches' : 'does not match'}: ${spiffeId} (entry ${entryId})`,
        ...missingSelectors.map((selector) => `    missing: ${selector}`),
        ...(note === '' ? [] : [`    ${note}`]),
      ].join('\n'),
    )
    const text = [
      `process ${pid}: ${verdict}`,
      'selectors seen:',
      ...selectors.map((selector) => `  ${selector}`),
      entries.length > 0 ? 'entries considered:' : 'entries considered: none, this agent has no entries',
      ...entries,
    ]
    return { value: { pid, verdict, selectors, considered }, text: text.join('\n'), ok: considered.some(({ matches }) => matches) }
  },
})
