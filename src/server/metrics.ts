/** What the server counts. */
import { gauge } from '../kernel/meter.ts'

/** Who says what is wrong; `clones` are agents that nobody accepts because two parties hold their identity (C-29). */
export const complaintSources = ['ca', 'policies', 'store', 'identity', 'clones'] as const

export const serverMetrics = {
  serving: gauge('vidimus_serving', '1 while the server does what it is there for, else 0', {}),
  complaints: gauge('vidimus_complaints', 'What the server complains about in its health, by who says so', {
    source: complaintSources,
  }),
}
