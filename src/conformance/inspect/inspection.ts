/** What is said of a document that somebody looks at. */
import { Failure, tellChain } from '../../kernel/failure.ts'
import { formatInstant, type Instant } from '../../kernel/clock.ts'
import { brokenRules } from '../../spiffe/rules.ts'
import type { DocumentKind, DocumentOf } from '../documents.ts'
import { type Finding, finding, type Level, type Rule, shown } from '../rule.ts'
import { rules } from '../rules.ts'

export interface Flaw {
  /** `X-12`; one of the regression rules (`R-4`) for what the specifications leave open. */
  readonly rule: string
  readonly level: Level
  readonly says: string
  readonly expected: string
  readonly found: string
}

/** A fact by its name, as text. */
export type Fact = readonly [name: string, value: string]

/** One document of an input: a certificate, a token, a bundle. */
export interface Inspected {
  /** `x509-svid`, `signing-certificate`, `certificate-request`, `jwt-svid`, … */
  readonly kind: string
  /** In words: `the X509-SVID of …`. */
  readonly title: string
  readonly facts: readonly Fact[]
  readonly flaws: readonly Flaw[]
}

/** What one is looking for. */
export interface Looking {
  readonly at: Instant
  /** The text of a bundle: PEM, bundle document, bundle map or key set. With one, signatures and paths are verified. */
  readonly trustBundle?: string | undefined
  readonly audience?: string | undefined
}

/** The flaws that rules find in a document by itself. */
export function flawsOf<Kind extends DocumentKind>(kind: Kind, document: DocumentOf<Kind>, except: readonly string[] = []): Flaw[] {
  return rules.flatMap((rule) => {
    const flaw = except.includes(rule.id) ? undefined : rule.judges?.[kind]?.(document)
    return flaw ? [flawOf(rule, flaw)] : []
  })
}

/** The flaw that a validator of ours refused something for, unless one of its rules has been named already. */
export function refusalFlaw(refusal: unknown, known: readonly Flaw[]): Flaw[] {
  const failure = Failure.from(refusal)
  if (failure.category === 'internal') throw failure
  const broken = brokenRules(failure)
  if (known.some(({ rule }) => broken.includes(rule))) return []
  const rule = rules.find(({ id }) => id === broken[0])
  const flaw = finding('a document that is accepted', tellChain(failure))
  return [
    rule
      ? flawOf(rule, flaw)
      : { rule: broken[0] ?? failure.reason, level: 'derived', says: 'what cannot be accepted is refused', ...flaw },
  ]
}

/** A flaw against a rule that is named. */
export function flawAgainst(id: string, flaw: Finding): Flaw {
  const rule = rules.find((one) => one.id === id)
  if (!rule) throw new Error(`bug: there is no rule ${id}`)
  return flawOf(rule, flaw)
}

function flawOf({ id, level, says }: Rule, { expected, found }: Finding): Flaw {
  return { rule: id, level, says, expected, found }
}

/** Facts without those that have nothing to say; what somebody else wrote is fit for a terminal. */
export function factsOf(pairs: readonly (readonly [name: string, value: string | undefined])[]): Fact[] {
  return pairs.flatMap(([name, value]) => (value === undefined || value === '' ? [] : [[name, shown(value)] as const]))
}

/** `2026-01-01T00:00:00Z`, or that there is no such moment. */
export function tellInstant(at: Instant): string {
  return Number.isFinite(at) && Math.abs(at) < latest ? formatInstant(at) : 'no moment that a calendar has'
}

const latest = 8.64e15
