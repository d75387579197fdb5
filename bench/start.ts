/** From the start of a compiled program to its being ready, and what it holds when nobody asks. */
import { setTimeout as pause } from 'node:timers/promises'
import { deadline, systemClock } from '../src/kernel/clock.ts'
import { seconds } from '../src/kernel/duration.ts'
import { clientOf, connectUnix } from '../src/rpc/client.ts'
import { Health, HealthCheckResponse_ServingStatus as Status } from '../src/rpc/gen/grpc/health/v1/health_pb.ts'
import { type Bench, demand, type Effort, type Figure, residentMb, rounded } from './harness.ts'
import { Installation, type Program } from './installation.ts'

export const start: readonly Bench[] = [
  {
    name: 'start.server',
    about: 'a server on new data, from its start until it says it is healthy, median of several; memory after two idle seconds',
    run: startServers,
  },
  {
    name: 'start.agent',
    about: 'an agent that joins with a token, from its start until it says it is healthy, median of several; memory after two idle seconds',
    run: startAgents,
  },
]

async function startServers(effort: Effort): Promise<Figure> {
  await using installation = await Installation.open()
  return await startSeveral(effort, async (count) => {
    const program = await installation.startServer(`server-${count}`)
    await untilHealthy(() => program.admin.isHealthy(deadline(seconds(10))))
    return program
  })
}

async function startAgents(effort: Effort): Promise<Figure> {
  await using installation = await Installation.open()
  const { admin } = await installation.startServer()
  return await startSeveral(effort, async (count) => {
    const program = await installation.startAgent(admin, `agent-${count}`)
    await using channel = connectUnix(program.socket)
    const health = clientOf(Health, channel)
    await untilHealthy(async () => (await health.check({}, { metadata })).status === Status.SERVING)
    return program
  })
}

/** One at a time, at least three, for as long as the effort lasts. */
async function startSeveral({ seconds: budget, stop }: Effort, startOne: (count: number) => Promise<Program>): Promise<Figure> {
  const ready: number[] = []
  const resident: number[] = []
  const until = systemClock.now() + seconds(budget)
  while (ready.length < 3 || systemClock.now() < until) {
    stop.throwIfAborted()
    const program = await startOne(ready.length)
    ready.push((performance.now() - program.startedAt) / 1000)
    if (resident.length < 2) {
      await pause(2000)
      const held = await residentMb(program.pid)
      if (held !== undefined) resident.push(held)
    }
    await program.stop()
  }
  return { value: rounded(median(ready)), unit: 's', ...(resident.length === 0 ? {} : { rss_mb: median(resident) }), n: ready.length }
}

async function untilHealthy(isHealthy: () => Promise<boolean>): Promise<void> {
  for (const until = performance.now() + 10_000; !(await isHealthy()); await pause(5))
    demand(performance.now() < until, 'a program that is ready is not healthy')
}

const metadata = { 'workload.spiffe.io': 'true' }
const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!
