/** How rules judge documents. */
import { Failure } from '../kernel/failure.ts'
import { buildChain } from '../x509/chain.ts'
import { type Chain, type Json, type JsonDocument, keysIn } from './documents.ts'
import { finding, type Finding } from './rule.ts'

export type Judge<T> = (document: T) => Finding | undefined

/** The first flaw among several. */
export function of<T>(list: readonly T[], judge: Judge<T>): Finding | undefined {
  for (const each of list) {
    const flaw = judge(each)
    if (flaw) return flaw
  }
  return undefined
}

/** Judges the members of a key set that `which` picks. */
export function entries(which: (key: Json) => boolean, judge: Judge<Json>): Judge<JsonDocument> {
  return (document) => of(keysIn(document).filter(which), judge)
}

/** Why there is no path to a root, where the reason is this rule's business. */
export function brokenPath(chain: Chain, isOurs: (reason: string) => boolean, expected: string): Finding | undefined {
  try {
    buildChain(chain)
    return undefined
  } catch (error) {
    const failure = Failure.from(error)
    return isOurs(failure.reason) ? finding(expected, failure.message) : undefined
  }
}

/** The flaw of what cannot be read. */
export function failing(read: () => unknown, expected: string): Finding | undefined {
  try {
    read()
    return undefined
  } catch (error) {
    return finding(expected, Failure.from(error).message)
  }
}
