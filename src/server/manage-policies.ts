import { administered } from '../audit/event.ts'
import { Failure } from '../kernel/failure.ts'
import type { PolicyDocument } from '../policy/policy-set.ts'
import { callerName, type Caller } from './caller.ts'
import type { PoliciesInForce } from './policies.ts'
import type { Server } from './server.ts'

/**
 * Replaces the policies in force.
 * @throws Failure `policy.invalid` with every problem and its place in `internal.problems`, `policy.too-many`, `policy.too-large`, `policy.duplicate-document`
 */
export async function applyPolicies(
  server: Pick<Server, 'clock' | 'audit' | 'policies'>,
  documents: readonly PolicyDocument[],
  caller: Caller,
): Promise<PoliciesInForce> {
  checkSize(documents)
  const applied = await server.policies.apply(documents, server.clock.now())
  await server.audit.append(
    administered(
      { what: 'policies.applied', subject: applied.version, caller: callerName(caller) },
      { documents: String(documents.length) },
    ),
  )
  return applied
}

function checkSize(documents: readonly PolicyDocument[]): void {
  if (documents.length > maxDocuments) {
    throw new Failure('invalid_argument', 'policy.too-many', {
      public: `there are ${documents.length} policy documents: at most ${maxDocuments}`,
    })
  }
  const characters = documents.reduce((sum, { name, text }) => sum + name.length + text.length, 0)
  if (characters > maxCharacters) {
    throw new Failure('invalid_argument', 'policy.too-large', {
      public: `the policy documents have ${characters} characters: at most ${maxCharacters}`,
    })
  }
  const names = new Set<string>()
  for (const { name } of documents) {
    if (names.has(name))
      throw new Failure('invalid_argument', 'policy.duplicate-document', {
        public: `two policy documents have the name \`${name.slice(0, 120)}\``,
      })
    names.add(name)
  }
}

const maxDocuments = 1000
/** All of them go to agents in one message, of which 4 MiB are read. */
const maxCharacters = 1024 * 1024
