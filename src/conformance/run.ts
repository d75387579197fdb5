/** Asks a Workload API about every rule, one after the other. */
import { type Clock, deadline } from '../kernel/clock.ts'
import type { Duration } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import type { DocumentKind, DocumentOf } from './documents.ts'
import type { Outcome, Verdict } from './report.ts'
import { type Finding, finding, type Judges, type Rule, Unseen } from './rule.ts'
import { rules } from './rules.ts'
import { type Place, Wire } from './wire.ts'
import { type Collected, methods, NoAnswer, WorkloadApi } from './workload-api.ts'

export interface Run {
  readonly place: Place
  readonly audience: string
  /** For every check. */
  readonly timeout: Duration
  /** Which rules; all if left out. */
  readonly selected?: readonly Rule[]
  readonly clock: Clock
  readonly stop: AbortSignal
  /** Told before each check. */
  readonly progress?: (rule: Rule, index: number, of: number) => void
}

/**
 * The verdict on every selected rule, in order. Nothing is changed by asking; tokens are fetched and validated.
 * @throws Failure `rpc.unavailable` if nobody answers there, and the reason of `stop`
 */
export async function runConformance({ place, audience, timeout, selected = rules, clock, stop, progress }: Run): Promise<Outcome[]> {
  await using wire = new Wire(place)
  const limit = () => deadline(timeout, stop)
  const api = WorkloadApi.over(wire, clock, audience, limit())
  // Whether anybody answers, so that a wrong path is not 208 verdicts.
  await api.outcome(methods.x509)
  const outcomes: Outcome[] = []
  for (const [index, rule] of selected.entries()) {
    stop.throwIfAborted()
    progress?.(rule, index, selected.length)
    outcomes.push({ rule, ...(await verdictOn(rule, api.within(limit()))) })
  }
  return outcomes
}

async function verdictOn(rule: Rule, api: WorkloadApi): Promise<Verdict> {
  if (rule.notBuilt !== undefined) return { verdict: 'not built', reason: rule.notBuilt }
  if (rule.unseen !== undefined) return { verdict: 'not testable', reason: rule.unseen }
  try {
    const documents = rule.judges ? await api.collected() : undefined
    const judged = documents && judge(rule.judges ?? {}, documents)
    if (judged?.flaw) return broken(judged.flaw)
    const answer = await rule.asks?.(api)
    if (answer instanceof Unseen) return { verdict: 'not testable', reason: answer.reason }
    if (answer) return broken(answer)
    if (!rule.asks && judged?.count === 0) return { verdict: 'not testable', reason: await lacking(rule.judges ?? {}, api) }
    return { verdict: 'kept' }
  } catch (error) {
    if (error instanceof NoAnswer) return { verdict: 'not testable', reason: error.message }
    const failure = Failure.from(error)
    if (failure.reason === 'conformance.malformed') return broken(finding('a message that can be read', failure.message))
    throw error
  }
}

/** The first flaw among the documents that a rule judges, and how many there were. */
function judge(judges: Judges, documents: Collected): { readonly flaw?: Finding; readonly count: number } {
  let count = 0
  for (const kind of Object.keys(judges) as DocumentKind[]) {
    const decide = judges[kind] as ((document: DocumentOf<DocumentKind>) => Finding | undefined) | undefined
    for (const document of documents[kind]) {
      count++
      const flaw = decide?.(document)
      if (flaw) return { flaw, count }
    }
  }
  return { count }
}

/** Why there is no document to judge. */
async function lacking(judges: Judges, api: WorkloadApi): Promise<string> {
  const kinds = Object.keys(judges) as DocumentKind[]
  const source = kinds.includes('wit') ? 'wit' : kinds.includes('jwt') ? 'jwt' : kinds.includes('keySet') ? 'jwtBundles' : 'x509'
  await api.raw(source)
  return 'none of the documents that were handed out could be read: API-12, API-13 or J-2 say why'
}

const broken = ({ expected, found }: Finding): Verdict => ({ verdict: 'broken', expected, found })
