import type { Readable } from 'node:stream'

/**
 * The messages of an object stream, one at a time and only when asked for, so that the stream's own limit bounds what is held.
 * Ends where the stream ends; throws what the stream failed with, or the signal's reason once it aborts.
 * Leaving early does not destroy the stream: its other direction may still be in use.
 */
export async function* incoming(stream: Readable, signal: AbortSignal): AsyncGenerator<Uint8Array, void, void> {
  let wake = () => {}
  let failed: { readonly error: unknown } | undefined
  let ended = stream.readableEnded || stream.destroyed
  const onNews = () => wake()
  const onEnd = () => {
    ended = true
    wake()
  }
  const onError = (error: unknown) => {
    failed ??= { error }
    wake()
  }
  stream.on('readable', onNews).on('end', onEnd).on('close', onEnd).on('error', onError)
  signal.addEventListener('abort', onNews)
  try {
    for (;;) {
      signal.throwIfAborted()
      const message = stream.read() as Uint8Array | null
      if (message !== null) {
        yield message
        continue
      }
      if (failed) throw failed.error
      if (ended) return
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
  } finally {
    signal.removeEventListener('abort', onNews)
    stream.off('readable', onNews).off('end', onEnd).off('close', onEnd).off('error', onError)
  }
}
