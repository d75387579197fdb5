/**
 * A comparison as SMT-LIB, for a solver that knows nothing of us: satisfiable where two sets differ for some request (authorization.md 5.4, step 5).
 * Said a second time and not derived from diagrams, so that each can judge the other.
 */
import type { CompiledPolicies } from '../compile.ts'
import type { CompiledRule } from '../compiled-rule.ts'
import type { Clause, PolicyMode } from '../policy-set.ts'
import { hostPattern, pathPattern, peerPattern } from './patterns.ts'
import { anyText, literal, type Regular } from './regular.ts'

/** The texts among which a difference is looked for, by attribute. */
export interface SmtDomains {
  readonly peer: Regular
  readonly path: Regular
  readonly method: Regular
  readonly host: Regular
}

/** The script; undefined where a rule says something that has no translation: headers, tokens, addresses, conditions in CEL, providers. Strict mode. */
export function toSmt(before: CompiledPolicies, after: CompiledPolicies, domains: SmtDomains): string | undefined {
  const verdicts = [before, after].map(verdictOf)
  if (verdicts.includes(undefined)) return undefined
  const texts = (['peer', 'path', 'method', 'host'] as const).filter((name) =>
    verdicts.some((one) => one!.includes(`${name} `) || one!.includes(` ${name})`)),
  )
  return [
    ...texts.map((name) => `(declare-const ${name} String)`),
    '(declare-const verified Bool)',
    '(declare-const http Bool)',
    '(declare-const port Int)',
    '(assert (and (<= 0 port) (<= port 65535)))',
    ...texts.map((name) => `(assert ${inRegular(name, domains[name])})`),
    `(assert (xor ${verdicts.join(' ')}))`,
    '(check-sat)',
  ].join('\n')
}

function verdictOf({ deny, allow, custom, tokens, mtls, mode, knownMethods }: CompiledPolicies): string | undefined {
  if (mode !== 'strict' || custom.length > 0 || tokens.length > 0 || mtls.mode === 'STRICT' || mtls.ports.size > 0) return undefined
  const known = or(knownMethods.map((method) => `(= method "${method}")`))
  const [denied, allowed] = [deny, allow].map((rules) => rules.map((rule) => ruleOf(rule, mode)))
  if ([...denied!, ...allowed!].includes(undefined)) return undefined
  return and([or(['(not http)', known]), `(not ${or(denied as string[])})`, or(allowed as string[])])
}

function ruleOf(rule: CompiledRule, mode: PolicyMode): string | undefined {
  if (rule.cel) return undefined
  const all = (clauses: readonly Clause[]) => {
    const parts = clauses.map((clause) => clauseOf(clause, rule.action === 'ALLOW', mode))
    return parts.includes(undefined) ? undefined : and(parts as string[])
  }
  const oneOf = (terms: 'any' | readonly (readonly Clause[])[]) => {
    if (terms === 'any') return 'true'
    const parts = terms.map(all)
    return parts.includes(undefined) ? undefined : or(parts as string[])
  }
  const parts = [rule.requirePeer ? 'verified' : 'true', oneOf(rule.sources), oneOf(rule.operations), all(rule.conditions)]
  return parts.includes(undefined) ? undefined : and(parts as string[])
}

/** What is not known is decided on the refusing side: against an ALLOW, for a DENY. */
function clauseOf(clause: Clause, isAllow: boolean, mode: PolicyMode): string | undefined {
  const signed = (holds: string) => (clause.not ? `(not ${holds})` : holds)
  const ofHttp = (holds: string) => (isAllow ? and(['http', signed(holds)]) : or(['(not http)', signed(holds)]))
  switch (clause.on) {
    case 'peer': {
      const holds = or(clause.anyOf.map((match) => inRegular('peer', peerPattern(match, mode))))
      return clause.not && !isAllow ? or(['(not verified)', signed(holds)]) : and(['verified', signed(holds)])
    }
    case 'path':
      return ofHttp(or(clause.anyOf.map((match) => inRegular('path', pathPattern(match, mode)))))
    case 'host':
      return ofHttp(or(clause.anyOf.map((match) => inRegular('host', hostPattern(match, mode)))))
    case 'method':
      return ofHttp(or(clause.anyOf.map((match) => inRegular('method', match.kind === 'exact' ? literal(match.value) : anyText))))
    case 'destination.port':
      return signed(or(clause.anyOf.map((port) => `(= port ${port})`)))
    default:
      return undefined
  }
}

const inRegular = (name: string, language: Regular): string => `(str.in_re ${name} ${regularOf(language)})`

function regularOf(language: Regular): string {
  switch (language.kind) {
    case 'set':
      return joined('re.union', language.set.map(([low, high]) => `(re.range ${character(low)} ${character(high)})`)) // prettier-ignore
    case 'sequence':
      return language.parts.length === 0 ? '(str.to_re "")' : joined('re.++', runsOf(language.parts))
    case 'choice':
      return joined('re.union', language.options.map(regularOf))
    case 'star':
      if (language === anyText) return 're.all'
      return `(re.* ${regularOf(language.of)})`
    default:
      throw new Error(`bug: regular ${JSON.stringify(language satisfies never)}`)
  }
}

/** Characters that follow each other are one text: solvers know more about texts than about expressions. */
function runsOf(parts: readonly Regular[]): string[] {
  const flat = parts.flatMap((part): readonly Regular[] => (part.kind === 'sequence' ? part.parts : [part]))
  const runs: string[] = []
  let run = ''
  for (const part of flat) {
    const only = part.kind === 'set' && part.set.length === 1 && part.set[0]![0] === part.set[0]![1] ? part.set[0]![0] : undefined
    if (only !== undefined) {
      run += `\\u{${only.toString(16)}}`
      continue
    }
    if (run !== '') runs.push(`(str.to_re "${run}")`)
    run = ''
    runs.push(regularOf(part))
  }
  return run === '' ? runs : [...runs, `(str.to_re "${run}")`]
}

const character = (code: number): string => `"\\u{${code.toString(16)}}"`
const joined = (operator: string, parts: readonly string[]): string => (parts.length === 1 ? parts[0]! : `(${operator} ${parts.join(' ')})`)
const and = (parts: readonly string[]): string => (parts.length === 0 ? 'true' : joined('and', parts))
const or = (parts: readonly string[]): string => (parts.length === 0 ? 'false' : joined('or', parts))
