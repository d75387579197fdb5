/** The only file that knows how this process is told to stop and what it leaves behind. */
import type { Terminal } from '../cli/output.ts'
import { Failure, tellChain } from '../kernel/failure.ts'
import { WatchedValue, type Watched } from '../kernel/watched.ts'

/** Exit codes of every command. */
const exitCodes = { success: 0, failure: 1, usage: 2 } as const

/** Reasons that are the caller's mistake in how the command was typed or configured. */
const usageReasons = /^(config|usage|duration|trust-domain|spiffe-id|selector|endpoint)\./

/** 2 for what the user has to type or configure differently, 1 for everything else. */
export function exitCodeFor(thrown: unknown): number {
  return thrown instanceof Failure && usageReasons.test(thrown.reason) ? exitCodes.usage : exitCodes.failure
}

/**
 * Runs `work` with a signal that SIGINT or SIGTERM aborts, and sets the exit code. Never ends the process by force:
 * what was opened is closed, then the event loop drains. A second signal does end it.
 */
export async function runProcess(work: (stop: AbortSignal) => Promise<void>): Promise<void> {
  const stop = new AbortController()
  const onSignal = () => {
    if (stop.signal.aborted) process.exit(exitCodes.failure)
    stop.abort()
  }
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal)
  for (const stream of [process.stdout, process.stderr]) stream.on('error', onBrokenPipe)
  try {
    await work(stop.signal)
  } catch (error) {
    process.exitCode = exitCodeFor(error)
    process.stderr.write(`vidimus: ${tellChain(error)}\n`)
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal)
  }
}

/** Counts how often this process was asked to read its configuration anew: SIGHUP, which would end it otherwise. */
export function countHangups(): Disposable & { readonly asked: Watched<number> } {
  const asked = new WatchedValue(0)
  const onSignal = () => asked.set(asked.current + 1)
  process.on('SIGHUP', onSignal)
  return { asked, [Symbol.dispose]: () => void process.off('SIGHUP', onSignal) }
}

/** A reader that has seen enough, as `head` has, is no failure of ours. */
function onBrokenPipe(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error
}

/** The user's terminal. */
export const terminal: Terminal = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  fail: () => void (process.exitCode = exitCodes.failure),
}
