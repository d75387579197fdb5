import { describe, expect, test } from 'vitest'
import { silentLog } from '../../src/kernel/log.ts'
import { WatchedValue } from '../../src/kernel/watched.ts'
import { clientOf } from '../../src/rpc/client.ts'
import { Health, HealthCheckResponse_ServingStatus as Status } from '../../src/rpc/gen/grpc/health/v1/health_pb.ts'
import { health } from '../../src/rpc/health.ts'
import { connectInMemory } from '../../src/rpc/in-memory.ts'

describe('health', () => {
  test('of a part that is not known is not found, and unknown to those who watch it', async () => {
    const { client } = checked({ serving: true })
    await expect(client.check({ service: 'other' })).rejects.toMatchObject({ category: 'not_found' })
    const watching = client.watch({ service: 'other' })
    expect((await watching.next()).value).toMatchObject({ status: Status.SERVICE_UNKNOWN })
    await watching.return()
  })

  test('is what it is when asked', async () => {
    const { client, state } = checked({ serving: false })
    expect((await client.check({})).status).toBe(Status.NOT_SERVING)
    state.set({ serving: true })
    expect((await client.check({})).status).toBe(Status.SERVING)
  })

  test('tells those who watch at once and at each change, and nothing twice', async () => {
    const { client, state } = checked({ serving: false })
    const watching = client.watch({})
    expect((await watching.next()).value).toMatchObject({ status: Status.NOT_SERVING })
    const next = watching.next()
    state.set({ serving: false })
    await new Promise((resolve) => setImmediate(resolve))
    state.set({ serving: true })
    expect((await next).value).toMatchObject({ status: Status.SERVING })
    await watching.return()
  })
})

function checked(initial: { serving: boolean }) {
  const state = new WatchedValue(initial)
  const channel = connectInMemory({ services: [health<string>(state)], peer: 'anybody', log: silentLog })
  return { client: clientOf(Health, channel), state }
}
