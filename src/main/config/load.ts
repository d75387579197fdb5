/** Text → configuration as written: strict, and every mistake with its place. */
import { isMap, isNode, isScalar, LineCounter, parseDocument, visit, type Document } from 'yaml'
import { z } from 'zod'
import { counted } from '../../cli/output.ts'
import { listed, problem, wording } from '../../cli/wording.ts'
import { Failure } from '../../kernel/failure.ts'

export interface ConfigSource {
  /** Shown in errors: a path, or `command line`. */
  readonly name: string
  readonly text: string
}

export interface ConfigProblem {
  /** `server.yaml:3:5`, or `--set listen.port`. */
  readonly where: string
  /** Where in the document: `listen.port`. */
  readonly path: string
  readonly message: string
}

/**
 * Reads YAML, lays `overrides` (`key.path=value`, the value as YAML) over it and checks it against the schema.
 * @throws Failure `config.invalid` whose text lists every problem; `internal.problems` holds them as {@link ConfigProblem}; `config.override`
 */
export function loadConfig<T>(schema: z.ZodType<T>, source: ConfigSource, overrides: readonly string[] = []): T {
  const written = read(source)
  const laid = overrides.map((override) => lay(written.document, override))
  const result = schema.safeParse(written.document.toJS() ?? {}, { error: wording })
  if (result.success) return result.data
  const mistakes = result.error.issues
    .flatMap((issue) => problemsOf(issue, schema))
    .map((mistake) => ({ ...mistake, place: placeOf(mistake, written, laid) }))
  const inOrder = mistakes.sort((a, b) => inText(a.place) - inText(b.place))
  throw invalid(inOrder.map(({ path, place, message }) => ({ where: told(place, written), path: path.join('.'), message })))
}

/** What to say about a key that nobody knows. */
export function unknownKey(key: string, known: readonly string[]): string {
  const near = nearest(key, known)
  return `unknown key \`${key}\`${near ? `: did you mean \`${near}\`?` : known.length > 0 ? `: expected one of ${listed(known)}` : ''}`
}

/** The keys that the schema knows at a path. */
export function knownKeys(schema: unknown, [step, ...rest]: readonly PropertyKey[]): readonly string[] {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault)
    return knownKeys(schema.unwrap(), step === undefined ? [] : [step, ...rest])
  if (schema instanceof z.ZodArray) return knownKeys(schema.element, rest)
  if (schema instanceof z.ZodUnion) return schema.options.flatMap((option) => knownKeys(option, step === undefined ? [] : [step, ...rest]))
  if (!(schema instanceof z.ZodObject)) return []
  const shape = schema.shape as Readonly<Record<string, unknown>>
  return step === undefined ? Object.keys(shape) : knownKeys(shape[String(step)], rest)
}

/** The known word that differs least, if it differs little. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  if (word.length > maxWord) return undefined
  const ranked = known.map((one) => ({ one, distance: editDistance(word.toLowerCase(), one.toLowerCase()) }))
  const [first] = ranked.sort((a, b) => a.distance - b.distance)
  return first && first.distance <= Math.max(2, word.length / 3) ? first.one : undefined
}

interface Written {
  readonly document: Document
  readonly lines: LineCounter
  readonly source: ConfigSource
}

/** What YAML can do beyond settings is refused: aliases, tags, several documents, a key that stands twice. */
function read(source: ConfigSource): Written {
  const lines = new LineCounter()
  const document: Document = parseDocument(source.text, { lineCounter: lines, uniqueKeys: true, strict: true })
  const mistakes = [...document.errors, ...document.warnings].map(({ pos, message }) => ({
    at: pos[0],
    message: lowerFirst(message.split('\n')[0]!.replace(/ at line \d+.*$/, '')),
  }))
  visit(document, {
    Alias: (_, { source: name, range }) =>
      void mistakes.push({ at: range?.[0] ?? 0, message: `\`*${name}\` is an alias: expected the value itself` }),
  })
  if (mistakes.length === 0) return { document, lines, source }
  throw invalid(mistakes.map(({ at, message }) => ({ where: told(at, { lines, source }), path: '', message })))
}

/** Lays one setting over the document; its path. */
function lay(document: Document, override: string): readonly string[] {
  const equals = override.indexOf('=')
  const path = override.slice(0, equals).split('.')
  if (equals < 1 || path.includes('')) throw badOverride(`\`${override}\` is not a setting: expected \`key.path=value\``)
  const value = parseDocument(override.slice(equals + 1))
  if (value.errors.length > 0) throw badOverride(`the value of \`${override}\` is not YAML`)
  if (document.contents === null) document.contents = document.createNode({}) as never
  try {
    document.setIn(path, value.toJS({ maxAliasCount: 0 }))
    // The only thing that can be wrong by now.
  } catch {
    throw badOverride(`\`${path.join('.')}\` cannot be set: what stands above it has no keys`)
  }
  return path
}

interface Mistake {
  readonly path: readonly PropertyKey[]
  /** Set where the key is wrong, not its value. */
  readonly key?: string
  readonly message: string
}

/** One issue of the schema, as the mistakes that it is about. */
function problemsOf(issue: z.core.$ZodIssue, schema: z.ZodType): readonly Mistake[] {
  if (issue.code !== 'unrecognized_keys') return [{ path: issue.path, message: lowerFirst(issue.message), ...keyOf(issue) }]
  return issue.keys.map((key) => ({ path: [...issue.path, key], key, message: unknownKey(key, knownKeys(schema, issue.path)) }))
}

/** `oneOf` of `schema.ts` tells of unknown keys by itself, because only it knows the driver. */
function keyOf(issue: z.core.$ZodIssue): { key?: string } {
  return issue.code === 'custom' && issue.params?.['unknownKey'] === true ? { key: String(issue.path.at(-1)) } : {}
}

/** An offset in the text, or the setting that was laid over it. */
type Place = number | readonly string[]

/** The place of a setting: that of its key if the key is wrong, of its value if that is, of what it should stand in if it is missing. */
function placeOf({ path, key }: Mistake, { document }: Written, laid: readonly (readonly string[])[]): Place {
  const override = laid.findLast(
    (one) => path.length > 0 && path.every((step, index) => index >= one.length || String(step) === one[index]),
  )
  return override ?? (key === undefined ? valueOffset(path, document) : keyOffset(path, key, document))
}

/** Where there is no text there are no lines. */
function told(place: Place, { lines, source: { name, text } }: Pick<Written, 'lines' | 'source'>): string {
  if (typeof place !== 'number') return `--set ${place.join('.')}`
  const { line, col } = lines.linePos(place)
  return text === '' ? name : `${name}:${Math.max(1, line)}:${Math.max(1, col)}`
}

const inText = (place: Place): number => (typeof place === 'number' ? place : Number.MAX_SAFE_INTEGER)

function keyOffset(path: readonly PropertyKey[], key: string, document: Document): number {
  const parent: unknown = path.length === 1 ? document.contents : document.getIn(path.slice(0, -1), true)
  const pair = isMap(parent) ? parent.items.find((item) => isScalar(item.key) && String(item.key.value) === key) : undefined
  return (isNode(pair?.key) ? pair.key.range?.[0] : undefined) ?? valueOffset(path, document)
}

function valueOffset(path: readonly PropertyKey[], document: Document): number {
  for (let length = path.length; length > 0; length--) {
    const node: unknown = document.getIn(path.slice(0, length), true)
    if (isNode(node) && node.range) return node.range[0]
  }
  return document.contents?.range?.[0] ?? 0
}

function invalid(problems: readonly ConfigProblem[]): Failure {
  return new Failure('invalid_argument', 'config.invalid', {
    public: `the configuration has ${counted(problems.length, 'mistake')}${problems.map((one) => `\n  ${one.where}: ${problem(one.path, one.message)}`).join('')}`,
    internal: { problems },
  })
}

const badOverride = (text: string): Failure => new Failure('invalid_argument', 'config.override', { public: text })

/** Levenshtein's, a row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    row = next
  }
  return row[b.length]!
}

const lowerFirst = (text: string): string => (/^[A-Z]{2}/.test(text) ? text : text.charAt(0).toLowerCase() + text.slice(1))
/** No key of ours is longer, and comparing a long text with each of them takes time. */
const maxWord = 64
