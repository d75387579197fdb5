import { z } from 'zod'
import { formatInstant } from '../../kernel/clock.ts'
import { minutes, parseDuration } from '../../kernel/duration.ts'
import { connectAdmin } from '../../server-api/client.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { command } from '../command.ts'
import { parsed, serverSocket, within } from '../flags.ts'

export const tokenGenerate = command({
  name: 'token generate',
  summary: 'make a join token: it admits one node, once',
  flags: z.strictObject({
    ...serverSocket,
    ttl: parsed(parseDuration).default(minutes(10)).describe('how long it may be used').meta({ value: 'duration', shown: '10m' }),
    spiffeId: parsed(parseSpiffeId).optional().describe('a further identity for the node, as parent of entries').meta({ value: 'id' }),
  }),
  examples: ['umask 077 && vidimus token generate > join-token', 'vidimus token generate --ttl 1h --spiffe-id spiffe://example.org/node/a'],
  async run({ serverSocket, ttl, spiffeId }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const { token, expiresAt } = await server.tokens.create({ ttl, ...(spiffeId ? { agentId: spiffeId } : {}) }, within(stop))
    return { value: { token: token.reveal(), expiresAt: formatInstant(expiresAt) }, text: token.reveal() }
  },
})
