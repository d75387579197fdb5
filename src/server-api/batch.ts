import { Failure, tellChain } from '../kernel/failure.ts'
import type { Log } from '../kernel/log.ts'
import { toStatus } from './messages.ts'

/** The status of one item that failed. What is wrong with us is logged, since the call as a whole succeeds. */
export function failedItem(log: Log, thrown: unknown): { code: number; message: string } {
  const failure = Failure.from(thrown)
  if (failure.category === 'internal') log.error('an item of a batch failed', { reason: failure.reason, error: tellChain(failure) })
  return toStatus(failure)
}

/** @throws Failure `api.batch-too-large` */
export function checkBatch(count: number, most = 5000): void {
  if (count <= most) return
  throw new Failure('invalid_argument', 'api.batch-too-large', { public: `the batch has ${count} items: at most ${most}` })
}

/** ALREADY_EXISTS, with the entry that is there. */
export const similar = { code: 6, message: 'similar entry already exists' } as const
