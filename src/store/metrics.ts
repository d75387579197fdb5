/** What the store counts. */
import { counter, reasonCodes } from '../kernel/meter.ts'

export const storeMetrics = {
  failures: counter('vidimus_store_failures_total', 'Requests that the store could not answer', {
    reason: { ...reasonCodes, known: ['store.failed'] },
  }),
}
