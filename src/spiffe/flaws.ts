import { Failure } from '../kernel/failure.ts'

/**
 * Everything that is wrong with a document, found one after the other: whoever verifies stops at the first, whoever inspects hears all.
 * What it returns is there only when nothing was wrong.
 */
export type Flaws<T = void> = Generator<Failure, T, undefined>

/** Throws the first flaw. */
export function demandNone<T>(flaws: Flaws<T>): T {
  const first = flaws.next()
  if (!first.done) throw first.value
  return first.value
}

/** Every flaw, the one that ended the search by a throw among them. */
export function collect(flaws: Flaws<unknown>): Failure[] {
  const found: Failure[] = []
  try {
    for (const flaw of flaws) found.push(flaw)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    found.push(error)
  }
  return found
}
