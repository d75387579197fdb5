import { z } from 'zod'
import { parseDuration } from '../../kernel/duration.ts'
import { command } from '../command.ts'
import { parsed, workloadSocket } from '../flags.ts'

export const conformance = command({
  name: 'conformance',
  summary: 'ask a Workload API, ours or any other, whether it keeps the rules of the SPIFFE specifications',
  forms: ['junit'],
  flags: z.strictObject({
    ...workloadSocket,
    selection: z
      .string()
      .optional()
      .describe('sections and rules, with commas between them: ID, X, J, W, EP, API, B, F, BE, BR, T (default: all)')
      .meta({ value: 'J,API,X-12' }),
    audience: z
      .string()
      .min(1)
      .default('vidimus-conformance')
      .describe('the audience of the tokens that are fetched')
      .meta({ value: 'name' }),
    timeout: parsed(parseDuration, 'a duration').prefault('10s').describe('how long one check may take').meta({ value: 'duration' }),
    quiet: z.boolean().default(false).describe('do not tell the progress on standard error'),
  }),
  examples: [
    'vidimus conformance --socket unix:///run/vidimus/agent/public/api.sock',
    'vidimus conformance --socket unix:///run/spire/agent/public/api.sock --selection X,J,API',
    'vidimus conformance --output junit > conformance.xml    # $SPIFFE_ENDPOINT_SOCKET names the socket',
  ],
  async run({ socket, selection, audience, timeout, quiet }, { judge, terminal, stop }) {
    const progress = quiet ? () => {} : (text: string) => terminal.err(text)
    const names = (selection ?? '').split(',').flatMap((name) => name.trim() || [])
    return judge.conformance({ address: socket, selection: names, audience, timeout, progress }, stop)
  },
})
