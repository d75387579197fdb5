/** What Node has given to its threads, or to the kernel, and not had back: keys being made, signatures, files, connections being opened. A fake clock must not run ahead of it. */
import { createHook } from 'node:async_hooks'

const underWay = new Map<number, { readonly type: string; readonly job: { readonly ondone?: unknown } }>()

createHook({
  trackPromises: false,
  init(id, type, _trigger, job) {
    if (isWork.test(type)) underWay.set(id, { type, job })
  },
  after: (id) => void underWay.delete(id),
  destroy: (id) => void underWay.delete(id),
}).enable()

/** What is under way, by the names of https://nodejs.org/api/async_hooks.html#type. */
export function working(): readonly string[] {
  // Cryptography that was done at once looks the same, but for nobody being told of its end.
  for (const [id, { type, job }] of underWay) if (type.endsWith('REQUEST') && !job.ondone) underWay.delete(id)
  return [...underWay.values()].map(({ type }) => type)
}

/** Lets everything run that can run without input from outside, what the threads do included. Gives up after a while on what does not end. */
export async function settle(): Promise<void> {
  const end = performance.now() + patienceMs
  const isQuiet = () => !working().some((type) => isOfThreads.test(type))
  for (let quiet = 0; quiet < 3 && performance.now() < end; quiet = isQuiet() ? quiet + 1 : 0) {
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** What begins and ends by itself. */
const isWork = /^(?!HTTP).*(?:REQUEST|REQ|REQPROMISE|REQCALLBACK|CONNECTWRAP|REQWRAP)$/
/** The crypto jobs and file requests: none that waits for a peer. */
const isOfThreads = /^FSREQ|^FILEHANDLECLOSEREQ|REQUEST$/
/** A request that does not end, as of a pipe that nobody writes to, is left to itself. */
const patienceMs = 4000
