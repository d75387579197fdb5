/** What the client of the server API counts. */
import { counter } from '../kernel/meter.ts'

export const clientMetrics = {
  connections: counter('vidimus_server_connections_total', 'Connections to the server, by the group of their key exchange (C-32)', {
    key_exchange: { most: 20 },
  }),
}
