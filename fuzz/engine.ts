import { Failure } from '../src/kernel/failure.ts'
import { Dice, mutate } from './mutate.ts'
import type { Target } from './target.ts'

export interface Ration {
  readonly seed: number
  /** Whichever is reached first ends it. */
  readonly runs: number
  readonly seconds: number
  readonly stop?: AbortSignal
  readonly progress?: (report: Report) => void
}

export interface Report {
  readonly runs: number
  readonly accepted: number
  /** How often each reason code was the answer. */
  readonly refused: ReadonlyMap<string, number>
  readonly slowestMs: number
  /** The first input that was answered with something else than acceptance or a Failure, and with what. */
  readonly finding?: { readonly input: Uint8Array; readonly thrown: unknown }
}

/**
 * Feeds a target with changed inputs. What gets an answer that was not heard before joins the inputs to start from:
 * reason codes are our measure of how deep an input went.
 */
export async function fuzz(target: Target, ration: Ration): Promise<Report> {
  try {
    return await run(target, ration)
  } finally {
    await target.close?.()
  }
}

async function run(target: Target, { seed, runs: most, seconds, stop, progress }: Ration): Promise<Report> {
  const dice = new Dice(seed)
  const corpus = [...(await target.seeds())]
  const words = target.words.map((word) => Buffer.from(word, /[^\x00-\xff]/.test(word) ? 'utf8' : 'latin1'))
  const refused = new Map<string, number>()
  const began = performance.now()
  let told = began
  let runs = 0
  let accepted = 0
  let slowestMs = 0
  const report = (): Report => ({ runs, accepted, refused, slowestMs })
  for (const input of corpus) {
    const answer = await answerTo(target, input)
    if (answer !== 'accepted') return { ...report(), finding: { input, thrown: new Error('a good input is refused', { cause: answer }) } }
  }
  while (runs < most) {
    const before = performance.now()
    if (before - began > seconds * 1000 || stop?.aborted) break
    const input = mutate(dice, dice.one(corpus), corpus, words)
    const answer = await answerTo(target, input)
    runs++
    slowestMs = Math.max(slowestMs, performance.now() - before)
    if (answer === 'accepted') accepted++
    else if (answer instanceof Failure) {
      const count = refused.get(answer.reason) ?? 0
      refused.set(answer.reason, count + 1)
      if (count < inputsAReason) corpus.push(input)
    } else return { ...report(), finding: { input, thrown: answer } }
    if (before - told > 1000) {
      told = before
      progress?.(report())
    }
  }
  return report()
}

async function answerTo(target: Target, input: Uint8Array): Promise<unknown> {
  try {
    const pending = target.feed(input)
    if (pending) await pending
    return 'accepted'
  } catch (error) {
    return error
  }
}

/** Inputs that are kept of each answer: enough to start from, too few to crowd out the good ones. */
const inputsAReason = 4
