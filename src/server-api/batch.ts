import { Failure, tellChain } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import { toStatus } from './messages.ts'

/** The status of one item that failed. What is wrong with us is logged, since the call as a whole succeeds. */
export function failedItem(log: Log, thrown: unknown): { code: number; message: string } {
  const failure = Failure.from(thrown)
  if (failure.category === 'internal') log.error('an item of a batch failed', { reason: failure.reason, error: tellChain(failure) })
  return toStatus(failure)
}
