/** What discovery streams count. */
import { counter } from '../kernel/meter.ts'

/** The type of the resources, as Envoy names it. */
const type = { most: 10 }

export const xdsMetrics = {
  responses: counter('vidimus_xds_responses_total', 'Responses that were sent to proxies', { type }),
  rejections: counter('vidimus_xds_rejections_total', 'Responses that a proxy refused (NACK)', { type }),
}
