/** What a rule of the SPIFFE specifications is here: a sentence, and the ways to see whether it is kept. */
import type { WorkloadApi } from './workload-api.ts'
import type { DocumentKind, DocumentOf } from './documents.ts'

export type Level = 'must' | 'should' | 'may' | 'derived'

/** How a rule is broken. */
export interface Finding {
  readonly expected: string
  readonly found: string
}

/** Why a rule cannot be seen here; a check returns it for what only shows at run time. */
export class Unseen {
  readonly reason: string

  constructor(reason: string) {
    this.reason = reason
  }
}

export interface Rule {
  /** `J-11` */
  readonly id: string
  readonly level: Level
  /** The rule in a sentence, lower case, no full stop. */
  readonly says: string
  /** What a document tells by itself: the flaw that breaks the rule, if it has one. */
  readonly judges?: Judges
  /** What only a Workload API tells, by its answers. */
  readonly asks?: (api: WorkloadApi) => Promise<Finding | Unseen | undefined>
  /** Why there is nothing to see of it from outside. */
  readonly unseen?: string
  /** What is missing here for the rule to matter. */
  readonly notBuilt?: string
}

/** One judgement a kind of document. */
export type Judges = { readonly [Kind in DocumentKind]?: (document: DocumentOf<Kind>) => Finding | undefined }

/** Gives a section its rules with their ids in front, so that each reads as one row. */
export function section(rows: Readonly<Record<string, Omit<Rule, 'id'>>>): readonly Rule[] {
  return Object.entries(rows).map(([id, row]) => ({ id, ...row }))
}

export const finding = (expected: string, found: string): Finding => ({ expected, found: shown(found) })

/** What somebody else wrote, fit for a terminal: one line, no control characters, not endless. */
export function shown(text: string): string {
  const line = text.replaceAll(/[^\x20-\x7e\u00a1-\u2028\u202f-\ud7ff]/gu, '?')
  return line.length > 200 ? `${line.slice(0, 200)}…` : line
}

/** A value of somebody else's JSON: a text as it is, everything else as JSON. */
export function told(value: unknown): string {
  if (typeof value === 'string' || typeof value === 'bigint') return `${value}`
  return JSON.stringify(value, (_name, part: unknown) => (typeof part === 'bigint' ? part.toString() : part)) ?? 'nothing'
}
