import { Failure } from '../kernel/failure.ts'
import type { Watched } from '../kernel/watched.ts'
import { Health, HealthCheckResponse_ServingStatus as Status } from './gen/grpc/health/v1/health_pb.ts'
import { type Mounted, mount } from './handler.ts'

/** What health checks ask: whether this program answers as it should. */
export interface Serving {
  readonly serving: boolean
}

/** The gRPC health protocol over a watched state. It knows the program as a whole (service name empty) and no parts. */
export function health<Peer>(state: Watched<Serving>): Mounted<Peer> {
  return mount<typeof Health, Peer>(Health, {
    async check({ service }) {
      if (service !== '')
        throw new Failure('not_found', 'health.unknown-service', { public: `no service \`${service.slice(0, 128)}\` is known here` })
      return { status: statusOf(state.current) }
    },

    async *watch({ service }, { signal }) {
      if (service !== '') {
        yield { status: Status.SERVICE_UNKNOWN }
        await ended(signal)
        return
      }
      let told: Status | undefined
      for await (const current of state.changes(signal)) {
        const status = statusOf(current)
        if (status !== told) yield { status }
        told = status
      }
    },
  })
}

function statusOf({ serving }: Serving): Status {
  return serving ? Status.SERVING : Status.NOT_SERVING
}

/** The protocol keeps the stream of an unknown service open, in case it appears. */
function ended(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}
