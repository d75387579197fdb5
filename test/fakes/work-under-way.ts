/** What Node has given to its threads and not had back: keys being made, signatures, files. A fake clock must not run ahead of it. */
import { createHook } from 'node:async_hooks'

const underWay = new Map<number, object>()

createHook({
  trackPromises: false,
  init(id, type, _trigger, resource) {
    if (endsByItself.test(type)) underWay.set(id, resource)
  },
  after: (id) => void underWay.delete(id),
  destroy: (id) => void underWay.delete(id),
}).enable()

/** Lets everything run that can run without input from outside, what the threads do included. Gives up after a while on what does not end. */
export async function settle(): Promise<void> {
  const end = performance.now() + patienceMs
  for (let quiet = 0; quiet < 3 && performance.now() < end; quiet = isQuiet() ? quiet + 1 : 0) {
    await new Promise((resolve) => setImmediate(resolve))
  }
}

function isQuiet(): boolean {
  // A crypto job that nobody is told the end of is one that ran at once.
  for (const [id, job] of underWay) if (job.constructor.name.endsWith('Job') && !('ondone' in job)) underWay.delete(id)
  return underWay.size === 0
}

/** The crypto jobs and file requests of Node, by the names that it gives them: none that waits for a peer. */
const endsByItself = /^FSREQ|^FILEHANDLECLOSEREQ|(GEN|EXPORT|SIGN|VERIFY|HASH|BITS|CIPHER|BYTES|PRIME)REQUEST$/
/** A request that does not end, as of a pipe that nobody writes to, is left to itself. */
const patienceMs = 4000
