/** What a listener counts. */
import { counter, gauge, reasonCodes, timing } from '../kernel/meter.ts'

/** `/package.Service/Method`, of the services that are mounted: a call of another never reaches a handler. */
const methods = { most: 200 }

export const rpcMetrics = {
  calls: timing('vidimus_rpc_seconds', 'Calls that were answered, by gRPC status; of a stream, how long it was open', {
    method: methods,
    code: { most: 17 },
  }),
  refusals: counter('vidimus_rpc_refusals_total', 'Calls that ended with a failure, by its reason code', { reason: reasonCodes }),
  open: gauge('vidimus_rpc_open', 'Calls that are being answered', { method: methods }),
}
