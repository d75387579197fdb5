import { administered } from '../audit/event.ts'
import { Failure } from '../kernel/failure.ts'
import type { LanguageOptions } from '../policy/language.ts'
import type { PolicyDocument } from '../policy/policy-set.ts'
import type { ServerApiCaller } from '../policy/request.ts'
import { callerName, type Caller } from './caller.ts'
import type { CheckedRelease, PoliciesInForce } from './policies.ts'
import type { Server } from './server.ts'

type Needs = Pick<Server, 'clock' | 'audit' | 'policies' | 'adminIds'>

export interface PolicyWish {
  readonly documents: readonly PolicyDocument[]
  /** Absent: as those in force. */
  readonly options?: LanguageOptions
  /** Over exactly these documents and options: a signed set is whole. */
  readonly signature?: string
  /** Takes away what is in force and is not among the documents. */
  readonly prune?: boolean
  /** Says what would change, and changes nothing. */
  readonly dryRun?: boolean
  /** Also where no administrator could call this server any more. */
  readonly force?: boolean
  /** The version that must be in force. */
  readonly expectedVersion?: string
}

/** Names of documents, sorted. */
export interface PolicyChanges {
  readonly added: readonly string[]
  readonly changed: readonly string[]
  readonly removed: readonly string[]
  readonly unchanged: readonly string[]
}

export interface PolicyOutcome {
  /** What is in force now; of a dry run, what would be. */
  readonly set: PoliciesInForce
  readonly changes: PolicyChanges
}

/**
 * Puts documents in force, all of them or none; others that are in force stay unless `prune` is wished.
 * @throws Failure `policy.invalid` with every problem and its place in `internal.problems`, `policy.too-many`, `policy.too-large`,
 *   `policy.duplicate-document`, `policy.changed-meanwhile`, `policy.lockout`, and those of `verifyPolicySet`
 */
export async function applyPolicies(server: Needs, wish: PolicyWish, caller: Caller): Promise<PolicyOutcome> {
  const now = server.policies.inForce.current
  if (wish.expectedVersion !== undefined && wish.expectedVersion !== now.version) throw changedMeanwhile(now.version)
  const whole = wish.prune === true || wish.signature !== undefined
  const documents = wanted(now.documents, { documents: wish.documents, whole })
  const { signature, options = now.options } = wish
  const release = await server.policies.check({ documents, options, signature }, server.clock.now())
  return putInForce(server, release, { ...wish, what: 'policies.applied' }, caller)
}

/**
 * Puts a set in force that was in force before, or, with serial 0, the one before the one in force.
 * @throws Failure `policy.no-such-set`, `policy.nothing-before`, `policy.lockout`; `policy.older-serial` where policies must be signed:
 *   there an older set is signed again
 */
export async function rollBackPolicies(
  server: Needs,
  { serial, force }: { readonly serial: number; readonly force: boolean },
  caller: Caller,
): Promise<PolicyOutcome> {
  const { documents, options, signature } = await server.policies.before(serial)
  const release = await server.policies.check({ documents, options, signature }, server.clock.now())
  return putInForce(server, release, { force, what: 'policies.rolled-back' }, caller)
}

async function putInForce(
  server: Needs,
  release: CheckedRelease,
  { what, dryRun, force }: { readonly what: string } & Pick<PolicyWish, 'dryRun' | 'force'>,
  caller: Caller,
): Promise<PolicyOutcome> {
  const at = server.clock.now()
  if (force !== true) refuseLockout(server, release)
  const changes = changesBetween(release.after.documents, release.documents)
  const { version, documents, options, after } = release
  if (dryRun === true) return { set: { version, documents, options, serial: after.serial }, changes }
  const by = callerName(caller)
  const set = await server.policies.putInForce(release, { at, by })
  await server.audit.append(
    administered(
      { what, subject: set.version, caller: by },
      {
        serial: String(set.serial),
        documents: String(documents.length),
        before: after.version,
        ...(release.claims && { signedSerial: String(release.claims.serial) }),
      },
    ),
  )
  return { set, changes }
}

/** Whoever may open the private socket, and the identities that the configuration names: those that an entry names may lose it. */
function refuseLockout({ policies, adminIds, clock }: Needs, release: CheckedRelease): void {
  const administrators: ServerApiCaller[] = ['local', ...(adminIds && adminIds.size > 0 ? (['admin'] as const) : [])]
  if (policies.canBeAdministered(release, administrators, clock.now())) return
  throw new Failure('failed_precondition', 'policy.lockout', {
    public:
      'with these policies nobody could apply others any more, neither over the private socket nor as one of `adminIds`: look at the policies with `target: serverApi`, or say `--force`',
  })
}

/** What is in force, with these documents in place of those of their names; or these alone. */
export function wanted(
  inForce: readonly PolicyDocument[],
  { documents, whole }: { readonly documents: readonly PolicyDocument[]; readonly whole: boolean },
): readonly PolicyDocument[] {
  refuseTwins(documents)
  const all = whole ? documents : merged(inForce, documents)
  checkSize(all)
  return all
}

/** A document takes the place of the one of its name. */
function merged(inForce: readonly PolicyDocument[], documents: readonly PolicyDocument[]): readonly PolicyDocument[] {
  const byName = new Map([...inForce, ...documents].map((document) => [document.name, document]))
  return [...byName.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1))
}

function changesBetween(before: readonly PolicyDocument[], after: readonly PolicyDocument[]): PolicyChanges {
  const [old, now] = [textsByName(before), textsByName(after)]
  const among = (names: Iterable<string>, wanted: (name: string) => boolean) => [...names].filter(wanted).toSorted()
  return {
    added: among(now.keys(), (name) => !old.has(name)),
    changed: among(now.keys(), (name) => old.has(name) && old.get(name) !== now.get(name)),
    removed: among(old.keys(), (name) => !now.has(name)),
    unchanged: among(now.keys(), (name) => old.get(name) === now.get(name)),
  }
}

const textsByName = (documents: readonly PolicyDocument[]) => new Map(documents.map(({ name, text }) => [name, text]))

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
}

function refuseTwins(documents: readonly PolicyDocument[]): void {
  const names = new Set<string>()
  for (const { name } of documents) {
    if (names.has(name))
      throw new Failure('invalid_argument', 'policy.duplicate-document', {
        public: `two policy documents have the name \`${name.slice(0, 120)}\``,
      })
    names.add(name)
  }
}

function changedMeanwhile(version: string): Failure {
  return new Failure('failed_precondition', 'policy.changed-meanwhile', {
    public: `other policies are in force than expected, version \`${version.slice(0, 16)}\`: look at them, and try again`,
  })
}

const maxDocuments = 1000
/** All of them go to agents in one message, of which 4 MiB are read. */
const maxCharacters = 1024 * 1024
