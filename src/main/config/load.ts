/** Text → configuration as written: strict, and every mistake with its place. */
import { isNode, LineCounter, parseDocument, type Document } from 'yaml'
import { z } from 'zod'
import { Failure } from '../../kernel/failure.ts'

export interface ConfigSource {
  /** Shown in errors: a path, or `command line`. */
  readonly name: string
  readonly text: string
}

export interface ConfigProblem {
  readonly source: string
  readonly line: number
  readonly column: number
  /** Where in the document: `listen.port`. */
  readonly path: string
  readonly message: string
}

/**
 * Reads YAML, lays `overrides` (`key.path=value`, the value as YAML) over it and checks it against the schema.
 * @throws Failure `config.invalid` whose text lists every problem; `internal.problems` holds them as {@link ConfigProblem}
 */
export function loadConfig<T>(schema: z.ZodType<T>, source: ConfigSource, overrides: readonly string[] = []): T {
  const lines = new LineCounter()
  const document = parseDocument(source.text, { lineCounter: lines, uniqueKeys: true, strict: true })
  if (document.errors.length > 0) {
    throw invalid(
      document.errors.map((error) => {
        const { line, col } = lines.linePos(error.pos[0])
        return { source: source.name, line, column: col, path: '', message: lowerFirst(error.message.split('\n')[0]!.replace(/ at line .*$/, '')) }
      }),
    )
  }
  for (const override of overrides) lay(document, override)
  const result = schema.safeParse(document.toJS({ maxAliasCount: 0 }) ?? {})
  if (result.success) return result.data
  throw invalid(result.error.issues.flatMap((issue) => told(issue, schema, document, lines, source.name)))
}

function lay(document: Document, override: string): void {
  const equals = override.indexOf('=')
  if (equals < 1) {
    throw new Failure('invalid_argument', 'config.override', { public: `\`${override}\` is not a setting: expected \`key.path=value\`` })
  }
  const value = parseDocument(override.slice(equals + 1))
  if (value.errors.length > 0) throw new Failure('invalid_argument', 'config.override', { public: `the value of \`${override}\` is not YAML` })
  if (document.contents === null) document.contents = document.createNode({}) as never
  document.setIn(override.slice(0, equals).split('.'), value.toJS({ maxAliasCount: 0 }))
}

function told(issue: z.core.$ZodIssue, schema: z.ZodType, document: Document, lines: LineCounter, source: string): ConfigProblem[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => {
      const known = knownKeys(schema, issue.path)
      const near = nearest(key, known)
      const message = `unknown key \`${key}\`${near ? `: did you mean \`${near}\`?` : known.length > 0 ? `: expected one of ${list(known)}` : ''}`
      return { ...place([...issue.path, key], document, lines), source, message }
    })
  }
  return [{ ...place(issue.path, document, lines), source, message: lowerFirst(issue.message) }]
}

function place(path: readonly PropertyKey[], document: Document, lines: LineCounter): { line: number; column: number; path: string } {
  const text = path.map(String).join('.')
  for (let length = path.length; length >= 0; length--) {
    const node: unknown = length === 0 ? document.contents : document.getIn(path.slice(0, length), true)
    if (isNode(node) && node.range) {
      const { line, col } = lines.linePos(node.range[0])
      return { line, column: col, path: text }
    }
  }
  return { line: 1, column: 1, path: text }
}

/** The keys that the schema knows at a path. */
function knownKeys(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let at: unknown = schema
  for (const step of path) at = at === undefined ? undefined : shapeOf(at)?.[String(step)]
  return Object.keys(shapeOf(at) ?? {})
}

function shapeOf(schema: unknown): Record<string, unknown> | undefined {
  if (schema instanceof z.ZodObject) return schema.shape as Record<string, unknown>
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault) return shapeOf(schema.unwrap())
  if (schema instanceof z.ZodPipe) return shapeOf(schema.in)
  return undefined
}

/** The known word that differs least, if it differs little. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const ranked = known.map((one) => ({ one, distance: editDistance(word.toLowerCase(), one.toLowerCase()) })).sort((a, b) => a.distance - b.distance)
  return ranked[0] && ranked[0].distance <= Math.max(2, word.length / 3) ? ranked[0].one : undefined
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    row = next
  }
  return row[b.length]!
}

function invalid(problems: readonly ConfigProblem[]): Failure {
  const lines = problems.map(({ source, line, column, path, message }) => `${source}:${line}:${column}: ${path === '' ? '' : `\`${path}\`: `}${message}`)
  return new Failure('invalid_argument', 'config.invalid', {
    public: `the configuration has ${problems.length === 1 ? 'a mistake' : `${problems.length} mistakes`}\n${lines.map((line) => `  ${line}`).join('\n')}`,
    internal: { problems },
  })
}

const list = (words: readonly string[]): string => words.map((word) => `\`${word}\``).join(', ')
const lowerFirst = (text: string): string => text.charAt(0).toLowerCase() + text.slice(1)
