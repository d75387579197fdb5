import { z } from 'zod'
import { connectAdmin } from '../../server-api/client.ts'
import { command } from '../command.ts'
import { agentAdminSocket, serverSocket, within } from '../flags.ts'
import { facts } from '../output.ts'

export const health = command({
  name: 'health',
  summary: 'ask the server, or with --agent the agent of this node, whether it is well',
  flags: z.strictObject({ ...serverSocket, ...agentAdminSocket, agent: z.boolean().default(false).describe('ask the agent') }),
  examples: ['vidimus health', 'vidimus health --agent'],
  async run({ serverSocket, agentAdminSocket, agent }, { openOperatorApi, stop }) {
    if (!agent) {
      await using server = connectAdmin(serverSocket)
      const healthy = await server.isHealthy(within(stop))
      return { value: { healthy }, text: healthy ? 'the server is well' : 'the server is not well: its log says why', ok: healthy }
    }
    await using api = openOperatorApi(agentAdminSocket)
    const { ready, spiffeId, complaints, facts: more } = await api.status(within(stop))
    const text = `${ready ? 'the agent is well' : 'the agent is not well'}${complaints.map((one) => `\n  ${one}`).join('')}\n${facts([['spiffe id', spiffeId], ...more.map(([name, value]) => [name, String(value)] as const)])}`
    return {
      value: { healthy: ready, spiffeId, complaints, ...Object.fromEntries(more.map(([name, value]) => [camelCase(name), value])) },
      text,
      ok: ready,
    }
  },
})

const camelCase = (name: string): string => name.replace(/ (\w)/g, (_, letter: string) => letter.toUpperCase())
