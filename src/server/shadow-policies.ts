/** A whole set of policies is tried beside the one in force: every agent counts how its verdicts differ, and nobody enforces them. */
import { administered } from '../audit/event.ts'
import { Failure } from '../kernel/failure.ts'
import type { LanguageOptions } from '../policy/language.ts'
import type { PolicyDocument } from '../policy/policy-set.ts'
import type { CandidatePolicies } from '../registry/policy-documents.ts'
import type { AttestedNode } from '../registry/node.ts'
import { callerName, type Caller } from './caller.ts'
import { wanted } from './manage-policies.ts'
import type { Server } from './server.ts'
import type { ShadowCount, ShadowObservations } from '../policy/shadow.ts'

export interface ShadowReport {
  readonly candidate?: CandidatePolicies
  readonly counts: readonly ShadowCount[]
  readonly unlisted: number
  readonly agents: number
}

type Needs = Pick<Server, 'clock' | 'audit' | 'policies' | 'shadow'>

/** @throws Failure `policy.invalid`, `policy.too-many`, `policy.too-large`, `policy.duplicate-document` */
export async function startShadow(
  server: Needs,
  wish: { readonly documents: readonly PolicyDocument[]; readonly options?: LanguageOptions; readonly prune: boolean },
  caller: Caller,
): Promise<CandidatePolicies> {
  const now = server.policies.inForce.current
  const documents = wanted(now.documents, { documents: wish.documents, whole: wish.prune })
  const by = callerName(caller)
  const candidate = await server.policies.tryOut({
    documents,
    options: wish.options ?? now.options,
    startedAt: server.clock.now(),
    startedBy: by,
  })
  if (!candidate) throw new Error('bug: a candidate was given and none is there')
  server.shadow.forget()
  await server.audit.append(
    administered({ what: 'policies.shadow-started', subject: candidate.version, caller: by }, { documents: String(documents.length) }),
  )
  return candidate
}

/** Ends it, and says what was seen. @throws Failure `policy.no-candidate` */
export async function stopShadow(server: Needs, caller: Caller): Promise<ShadowReport> {
  const report = shadowReport(server)
  if (!report.candidate) throw new Failure('failed_precondition', 'policy.no-candidate', { public: 'no policies are being tried' })
  await server.policies.tryOut(undefined)
  server.shadow.forget()
  await server.audit.append(
    administered({ what: 'policies.shadow-stopped', subject: report.candidate.version, caller: callerName(caller) }),
  )
  return report
}

/** What was seen so far, the most frequent first. */
export function shadowReport({ policies, shadow }: Pick<Needs, 'policies' | 'shadow'>): ShadowReport {
  const { candidate } = policies.inForce.current
  return { ...(candidate && { candidate }), ...shadow.sum(triedVersion(policies)) }
}

/** Without a candidate, what is tried are the policies in force with those of them that are on dry run. */
const triedVersion = ({ inForce }: Pick<Server['policies'], 'inForce'>): string =>
  inForce.current.candidate?.version ?? inForce.current.version

/** An agent tells what it counted. What it says of another candidate than the one that is tried is dropped. */
export function takeObservations(
  { policies, shadow }: Pick<Needs, 'policies' | 'shadow'>,
  node: AttestedNode,
  seen: ShadowObservations,
): void {
  if (triedVersion(policies) === seen.candidateVersion) shadow.take(node.id, seen)
}
