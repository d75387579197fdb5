/** YAML as a tree of plain values that know where they stand. Strict: no anchors, aliases, tags, duplicate or non-text keys; limits on size and depth (R-24, R-28). */
import { isAlias, isMap, isScalar, isSeq, Lexer, LineCounter, parseAllDocuments, type Node } from 'yaml'
import type { Place, PolicyDocument } from './policy-set.ts'

/** A value and where it stands; `path` is `spec.rules[0].to`, empty at the root. */
export type Tree = TextTree | PlainTree | ListTree | MapTree
interface Standing {
  readonly path: string
  readonly place: Place
}
export interface TextTree extends Standing {
  readonly kind: 'text'
  readonly text: string
}
/** A number, true, false or null, as it was written. */
export interface PlainTree extends Standing {
  readonly kind: 'number' | 'boolean' | 'null'
  readonly text: string
}
export interface ListTree extends Standing {
  readonly kind: 'list'
  readonly items: readonly Tree[]
}
export interface MapTree extends Standing {
  readonly kind: 'map'
  readonly entries: ReadonlyMap<string, Tree>
  /** Where the keys stand. */
  readonly keys: ReadonlyMap<string, Place>
}

/** Something wrong with a text, and where: `message` says what was expected and what was found. */
export interface Problem extends Place {
  /** `spec.rules[0].to[0].operation.paths[1]`, empty for the document as a whole. */
  readonly path: string
  readonly message: string
}

/** Collects what is wrong, up to a limit, so that one mistake does not hide the next. */
export class Problems {
  readonly #found: Problem[] = []

  /** Returns nothing, so that a reader can note and leave in one line. */
  add(at: Standing, message: string): undefined {
    if (!this.full) this.#found.push({ ...at.place, path: at.path, message })
  }

  /** True when one more would not be kept. */
  get full(): boolean {
    return this.#found.length >= maxProblems
  }

  /** In order of line and column within each document, the documents in the order they were read in. */
  get all(): readonly Problem[] {
    const order = new Map([...new Set(this.#found.map(({ document }) => document))].map((name, index) => [name, index]))
    return this.#found.toSorted((a, b) => order.get(a.document)! - order.get(b.document)! || a.line - b.line || a.column - b.column)
  }
}

/** Reads every YAML document of a text; empty ones are left out. What is wrong goes to `problems`, and its document is left out. */
export function readYaml(source: PolicyDocument, problems: Problems): MapTree[] {
  const start: Standing = { path: '', place: { document: source.name, line: 1, column: 1 } }
  if (new TextEncoder().encode(source.text).length > maxDocumentBytes) {
    problems.add(start, `the document is larger than ${maxDocumentBytes} bytes`)
    return []
  }
  if (isFarTooDeep(source.text)) {
    problems.add(start, `the document is nested deeper than ${maxDepth} levels`)
    return []
  }
  if (hasTooManyParts(source.text)) {
    problems.add(start, `the document has more than ${maxParts} values and marks`)
    return []
  }
  const lines = new LineCounter()
  try {
    const documents = parseAllDocuments(source.text, {
      lineCounter: lines,
      uniqueKeys: false,
      strict: true,
      version: '1.2',
      merge: false,
      prettyErrors: false,
      logLevel: 'silent',
    })
    return 'empty' in documents
      ? []
      : documents.flatMap((document) => {
          const reading: Reading = { source, lines, problems, broken: false }
          for (const error of [...document.errors, ...document.warnings]) {
            problems.add({ path: '', place: placeAt(reading, error.pos[0]) }, firstLine(error.message))
            reading.broken = true
          }
          if (reading.broken || document.contents === null || isEmpty(document.contents)) return []
          const tree = toTree(document.contents, '', 0, reading)
          if (reading.broken || !tree) return []
          if (tree.kind === 'map') return [tree]
          problems.add(tree, `expected a map, found ${tell(tree)}`)
          return []
        })
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause
    problems.add(start, `the document is nested deeper than ${maxDepth} levels`)
    return []
  }
}

/** A tree in a few words, for the end of "expected …, found …". */
export function tell(tree: Tree): string {
  switch (tree.kind) {
    case 'text':
      return `\`${shorten(tree.text)}\``
    case 'number':
    case 'boolean':
      return `the ${tree.kind} \`${shorten(tree.text)}\``
    case 'null':
      return 'nothing'
    case 'list':
      return 'a list'
    case 'map':
      return 'a map'
    default:
      throw new Error(`bug: tree ${JSON.stringify(tree satisfies never)}`)
  }
}

/** Reports every key that is not among the known ones, with the nearest of them. Those `told` have been reported with a reason of their own. */
export function refuseUnknownKeys(map: MapTree, known: readonly string[], problems: Problems, told: readonly string[] = []): void {
  for (const [key, place] of map.keys) {
    if (problems.full) return
    if (known.includes(key) || told.includes(key)) continue
    const path = map.path === '' ? key : `${map.path}.${key}`
    problems.add({ path, place }, `unknown key \`${shorten(key)}\`${suggestion(key, known)}`)
  }
}

/** `: did you mean …?`, or else what there is. */
export function suggestion(word: string, known: readonly string[]): string {
  const nearest = known
    .map((one) => ({ one, distance: distance(word.toLowerCase().slice(0, maxShown), one.toLowerCase()) }))
    .filter(({ one, distance: far }) => far <= Math.min(3, Math.max(1, Math.floor(one.length / 2))))
    .sort((a, b) => a.distance - b.distance)[0]
  return nearest ? `: did you mean \`${nearest.one}\`?` : `: expected ${known.map((one) => `\`${one}\``).join(', ')}`
}

/** At most 80 characters, on one line. */
export function shorten(text: string): string {
  const line = text.replace(/[\x00-\x1f\x7f]/g, '·')
  return line.length > maxShown ? `${line.slice(0, maxShown)}…` : line
}

interface Reading {
  readonly source: PolicyDocument
  readonly lines: LineCounter
  readonly problems: Problems
  broken: boolean
}

function toTree(node: Node | null, path: string, depth: number, reading: Reading): Tree | undefined {
  const place = placeAt(reading, node?.range?.[0] ?? 0)
  if (depth > maxDepth) return refuse({ path, place }, `nested deeper than ${maxDepth} levels`, reading)
  if (node === null) return { kind: 'null', text: '', path, place }
  if (isAlias(node)) return refuse({ path, place }, 'aliases are not accepted: write the value out', reading)
  if (node.anchor !== undefined && node.anchor !== '')
    return refuse({ path, place }, 'anchors are not accepted: write the value out', reading)
  if (node.tag !== undefined && node.tag !== '') return refuse({ path, place }, `the tag \`${shorten(node.tag)}\` is not accepted`, reading)
  if (isSeq<Node>(node)) {
    const items = node.items.map((item, index) => toTree(item, `${path}[${index}]`, depth + 1, reading))
    return { kind: 'list', path, place, items: items.filter((item) => item !== undefined) }
  }
  if (isMap<Node, Node | null>(node)) {
    const entries = new Map<string, Tree>()
    const keys = new Map<string, Place>()
    for (const { key, value } of node.items) {
      const keyPlace = placeAt(reading, key.range?.[0] ?? node.range?.[0] ?? 0)
      const name = keyOf(key, path)
      if (name === undefined) {
        refuse({ path, place: keyPlace }, 'expected a text as key', reading)
        continue
      }
      // The library compares every key with every other, which a document of many keys turns into minutes.
      if (keys.has(name)) {
        refuse({ path: path === '' ? name : `${path}.${name}`, place: keyPlace }, `the key \`${shorten(name)}\` is there twice`, reading)
        continue
      }
      const tree = toTree(value, path === '' ? name : `${path}.${name}`, depth + 1, reading)
      keys.set(name, keyPlace)
      if (tree) entries.set(name, tree.kind === 'null' && value?.range === undefined ? { ...tree, place: keyPlace } : tree)
    }
    return { kind: 'map', path, place, entries, keys }
  }
  return isScalar(node) ? scalarTree(node.value, node.source ?? '', { path, place }) : refuse({ path, place }, 'expected a value', reading)
}

/** Ports are written without quotes where they are keys. */
function keyOf(key: unknown, path: string): string | undefined {
  if (!isScalar(key)) return undefined
  if (typeof key.value === 'number' && path === 'spec.portLevelMtls') return key.source
  return typeof key.value === 'string' ? key.value : undefined
}

function scalarTree(value: unknown, source: string, at: Standing): Tree {
  if (typeof value === 'string') return { kind: 'text', text: value, ...at }
  if (value === null) return { kind: 'null', text: source, ...at }
  return { kind: typeof value === 'boolean' ? 'boolean' : 'number', text: source, ...at }
}

function refuse(at: Standing, message: string, reading: Reading): undefined {
  reading.problems.add(at, message)
  reading.broken = true
}

/** The library takes seconds for what is nested in a hundred thousand levels, so a glance at the characters comes first. */
function isFarTooDeep(text: string): boolean {
  let depth = 0
  for (const character of text) {
    if (character === '[' || character === '{') depth++
    else if (character === ']' || character === '}') depth--
    if (depth > maxBrackets) return true
  }
  return compactNesting.test(text)
}

/** Cutting a text into its parts is quick; making a tree of them is not. */
function hasTooManyParts(text: string): boolean {
  let count = 0
  for (const _ of new Lexer().lex(text)) if (++count > maxParts) return true
  return false
}

function isEmpty(node: Node): boolean {
  return isScalar(node) && node.value === null
}

function placeAt(reading: Reading, offset: number): Place {
  const { line, col } = reading.lines.linePos(offset)
  return { document: reading.source.name, line: Math.max(1, line), column: Math.max(1, col) }
}

/** What the library says, as we say things. */
function firstLine(message: string): string {
  if (message.startsWith('Maximum call stack')) return `nested deeper than ${maxDepth} levels`
  const text = message.split('\n')[0]!
  return shorten(text.charAt(0).toLowerCase() + text.slice(1))
}

/** How many letters must change (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    }
    row = next
  }
  return row[b.length]!
}

const maxDocumentBytes = 1_048_576
/** Istio's kinds need nine levels. */
const maxDepth = 16
/** A document of the largest size that is all lines of short values has about so many. */
const maxParts = 300_000
/** More than texts in quotes can leave open by accident. */
const maxBrackets = 256
const compactNesting = /(?:[-?:][ \t]+){64}/
/** More than anybody reads at once. */
const maxProblems = 500
const maxShown = 80
