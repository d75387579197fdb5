import type { Selector } from '../spiffe/selector.ts'
import type { Driver } from '../kernel/driver.ts'
import type { Peer } from './peer.ts'

/** PORT: says what can be known of a local process. */
export interface WorkloadAttestor extends AsyncDisposable {
  /** Selectors of this attestor's type only. The peer is still the same process when this resolves. */
  attest(peer: Peer, signal: AbortSignal): Promise<readonly Selector[]>
}

export type WorkloadAttestorDriver<Config = never> = Driver<WorkloadAttestor, Config>

/** Gives a driver its types; nothing else. */
export const workloadAttestor = <Config>(driver: WorkloadAttestorDriver<Config>): WorkloadAttestorDriver<Config> => driver
