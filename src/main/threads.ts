/** The threads that this program starts: where their code is, in the sources and in the bundle. */
import { availableParallelism } from 'node:os'
import type { WorkbenchThreads } from '../ca/workbench-threads.ts'
import { openThreads } from '../kernel/threads.ts'

/** As many as there are cores, at most four: beside the thread that signs they are what keeps the cores busy. */
export function openWorkbenchThreads(most = Math.min(availableParallelism(), 4)): Promise<WorkbenchThreads> {
  return openThreads(isSource ? new URL('../ca/workbench-thread.ts', import.meta.url) : new URL('./workbench-thread.js', import.meta.url), {
    most,
  })
}

const isSource = import.meta.url.endsWith('.ts')
