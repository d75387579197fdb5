import { timestampMs } from '@bufbuild/protobuf/wkt'
import { describe, expect, test } from 'vitest'
import { minutes, seconds } from '../../src/kernel/duration.ts'
import { silentLog } from '../../src/kernel/log.ts'
import { clientOf } from '../../src/rpc/client.ts'
import { Operator } from '../../src/rpc/gen/vidimus/api/agent/v1/operator_pb.ts'
import { connectInMemory } from '../../src/rpc/in-memory.ts'
import { operatorService } from '../../src/workload-api/operator-service.ts'
import { type Rig, startAgent, until } from '../agent/rig.ts'

const operator = (rig: Rig) =>
  clientOf(Operator, connectInMemory({ services: [operatorService(rig.agent)], peer: 'operator', log: silentLog }))

describe('an operator is refused', () => {
  test.each([0, -1])('a process with the number %d', async (pid) => {
    await using rig = await startAgent({ run: false })
    await expect(operator(rig).explainWorkload({ pid })).rejects.toMatchObject({ category: 'invalid_argument' })
  })
  test('a process that does not exist', async () => {
    await using rig = await startAgent({ run: false })
    await expect(operator(rig).explainWorkload({ pid: 4711 })).rejects.toMatchObject({ category: 'not_found' })
  })
})

test('an operator is told which selector is missing', async () => {
  await using rig = await startAgent()
  rig.server.add('/init', ['test:name:init', 'test:zone:a'])
  await rig.clock.advance(seconds(5))
  const { selectors, considered, verdict } = await operator(rig).explainWorkload({ pid: 1 })
  expect(selectors).toEqual(['test:name:init'])
  expect(considered).toMatchObject([
    {
      entryId: 'entry-001',
      spiffeId: 'spiffe://example.org/init',
      missingSelectors: ['test:zone:a'],
      matches: false,
      note: 'the process lacks 1 of 2 selectors',
    },
  ])
  expect(verdict).toContain('also asks for `test:zone:a`')
})

test('an operator is told how the agent is', async () => {
  await using rig = await startAgent()
  rig.server.add('/init', ['test:name:init'])
  await rig.clock.advance(seconds(5))
  await until(() => rig.agent.status().svids === 1)
  const well = await operator(rig).getStatus({})
  expect(well).toMatchObject({
    spiffeId: 'spiffe://example.org/spire/agent/join_token/token-1',
    entries: 1,
    x509Svids: 1,
    policyVersion: 'v1',
    ready: true,
    reasons: [],
  })
  expect(timestampMs(well.lastSyncAt!)).toBe(rig.clock.now())
  rig.server.away = true
  await rig.clock.advance(minutes(5))
  expect((await operator(rig).getStatus({})).reasons).toHaveLength(2)
})
