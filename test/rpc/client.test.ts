import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { clientOf, connectUnix } from '../../src/rpc/client.ts'
import { Agent } from '../../src/rpc/gen/spire/api/server/agent/v1/agent_pb.ts'

test('a conversation that ended before its first message says why, and does not wait for ever', async () => {
  await using channel = connectUnix(join(tmpdir(), 'vidimus-nobody-listens.sock'))
  const agent = clientOf(Agent, channel)
  const conversation = agent.attestAgent({})
  await expect(agent.countAgents({})).rejects.toMatchObject({ category: 'unavailable' })
  await conversation.send({ step: { case: 'challengeResponse', value: new Uint8Array() } })
  await expect(conversation.responses.next()).rejects.toMatchObject({ category: 'unavailable' })
})
