/** What a vault says of itself at `sys/health` (V-10). */
import { Failure } from '../../kernel/failure.ts'
import type { VaultSession } from './session.ts'

export interface VaultHealth {
  readonly state: string
  /** Whether calls of ours are answered there. */
  readonly serves: boolean
}

/** One row a status. A standby passes our calls on to the active server. */
const states: ReadonlyMap<number, VaultHealth> = new Map([
  [200, { state: 'active', serves: true }],
  [429, { state: 'standby', serves: true }],
  [472, { state: 'disaster recovery secondary', serves: false }],
  [473, { state: 'performance standby', serves: true }],
  [501, { state: 'not initialised', serves: false }],
  [503, { state: 'sealed', serves: false }],
])

/** @throws Failure `vault.unreachable`, `vault.timeout`, `vault.file-missing` */
export async function healthOf(session: VaultSession, signal: AbortSignal): Promise<VaultHealth> {
  const { status } = await session.ask({ method: 'GET', path: ['sys', 'health'], outsideNamespace: true }, signal)
  const state = states.get(status)
  if (state) return state
  throw new Failure('unavailable', 'vault.unavailable', {
    public: `the vault answers with status ${status} when it is asked for its health`,
  })
}
