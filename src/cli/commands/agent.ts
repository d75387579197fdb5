import { z } from 'zod'
import { formatInstant } from '../../kernel/clock.ts'
import { connectAdmin, type AgentSummary, type FrozenAgent } from '../../server-api/client.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { formatSelector } from '../../spiffe/selector.ts'
import { command } from '../command.ts'
import { configFlags, parsed, positional, serverSocket, within } from '../flags.ts'
import { facts, table } from '../output.ts'

export const agentRun = command({
  name: 'agent run',
  summary: 'run the agent of this node until it is told to stop',
  flags: z.strictObject(configFlags),
  examples: ['vidimus agent run --config /etc/vidimus/agent.yaml'],
  run: ({ config, set }, { programs, stop }) => programs.run('agent', { path: config, overrides: set }, stop),
})

export const agentList = command({
  name: 'agent list',
  summary: 'list the agents that joined',
  flags: z.strictObject(serverSocket),
  async run({ serverSocket }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const [agents, frozen] = await Promise.all([server.agents.list(within(stop)), server.agents.frozen(within(stop))])
    const clones = new Map(frozen.map((one) => [one.id, one]))
    const rows = agents.map((agent) => [
      agent.id,
      agent.attestationType,
      state(agent, clones.get(agent.id)),
      formatInstant(agent.expiresAt),
      agent.agentVersion,
    ])
    return {
      value: { agents: agents.map((agent) => told(agent, clones.get(agent.id))) },
      text:
        rows.length === 0
          ? 'no agent has joined; `vidimus token generate` makes a token for the first'
          : table(['AGENT', 'ATTESTED BY', 'STATE', 'CERTIFICATE UNTIL', 'VERSION'], rows),
    }
  },
})

const oneAgent = { ...serverSocket, id: positional(parsed(parseSpiffeId)) }
const idArgument = [{ name: 'id', help: 'the SPIFFE ID of the agent, as `vidimus agent list` shows it' }]

export const agentShow = command({
  name: 'agent show',
  summary: 'show one agent',
  flags: z.strictObject(oneAgent),
  positional: idArgument,
  async run({ serverSocket, id }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const [agent, frozen] = await Promise.all([server.agents.find(id, within(stop)), server.agents.frozen(within(stop))])
    const clone = frozen.find((one) => one.id === id)
    const text = facts([
      ['id', agent.id],
      ['attested by', agent.attestationType],
      ['state', state(agent, clone)],
      ['serial', agent.serialNumber],
      ['certificate until', formatInstant(agent.expiresAt)],
      ['selectors', agent.selectors.map(formatSelector).join(' ')],
      ['version', agent.agentVersion],
      ...(clone ? seenTwice(clone) : []),
    ])
    return { value: told(agent, clone), text }
  },
})

export const agentBan = command({
  name: 'agent ban',
  summary: 'stop an agent from calling the server; it may not join again until it is evicted',
  flags: z.strictObject(oneAgent),
  positional: idArgument,
  async run({ serverSocket, id }, { stop }) {
    await using server = connectAdmin(serverSocket)
    await server.agents.ban(id, within(stop))
    return { value: { id, banned: true }, text: `banned ${id}; at its next call it stops handing out identities` }
  },
})

export const agentEvict = command({
  name: 'agent evict',
  summary: 'forget an agent, so that its node has to join again',
  flags: z.strictObject(oneAgent),
  positional: idArgument,
  async run({ serverSocket, id }, { stop }) {
    await using server = connectAdmin(serverSocket)
    await server.agents.evict(id, within(stop))
    return { value: { id, evicted: true }, text: `evicted ${id}` }
  },
})

export const agentRelease = command({
  name: 'agent release',
  summary: 'let an agent that was frozen because there is a copy of its identity prove its node anew',
  flags: z.strictObject(oneAgent),
  positional: idArgument,
  async run({ serverSocket, id }, { stop }) {
    await using server = connectAdmin(serverSocket)
    await server.agents.release(id, within(stop))
    return {
      value: { id, released: true },
      text: `released ${id}; none of its certificates is accepted: start its agent again to attest, with a new join token if it joined by one`,
    }
  },
})

function state({ banned, canReattest, serialNumber }: AgentSummary, clone: FrozenAgent | undefined): string {
  if (banned) return 'banned'
  if (clone) return 'frozen'
  if (serialNumber === '') return 'released'
  return canReattest ? 'may attest again' : 'joined'
}

const seenTwice = ({ at, superseded, successor }: FrozenAgent): [string, string][] => [
  ['frozen since', formatInstant(at)],
  ['because', `serial ${superseded.serial} was used again by ${superseded.address}`],
  ['after', `serial ${successor.serial} had replaced it, used first by ${successor.address}`],
]

function told({ expiresAt, selectors, ...agent }: AgentSummary, clone: FrozenAgent | undefined) {
  const frozen = clone && { at: formatInstant(clone.at), superseded: clone.superseded, successor: clone.successor }
  return { ...agent, expiresAt: formatInstant(expiresAt), selectors: selectors.map(formatSelector), ...(frozen && { frozen }) }
}
