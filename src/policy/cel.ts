/**
 * Conditions in CEL: the fragment of it in which every comparison is about one attribute (authorization.md 5.4). Read once into a tree of
 * tests with negations at the leaves; deciding takes a step a test, so nothing runs away (R-24).
 */
import { parse } from '@bufbuild/cel'
import { RE2JS } from '@bufbuild/re2'
import { Failure } from '../kernel/failure.ts'
import { foldPath, isCanonicalPath } from './normalize.ts'

export interface CelCondition {
  /** As it was written. */
  readonly text: string
  readonly tree: CelTree
}

/** All of none is always true, any of none never. */
export type CelTree = { readonly kind: 'all' | 'any'; readonly of: readonly CelTree[] } | CelTest

export interface CelTest {
  readonly kind: 'test'
  readonly not: boolean
  readonly attribute: CelAttribute
  readonly comparison: CelComparison
}

/** Under the names that Envoy gives them. `request.url_path` is normalised and without query. */
export type CelAttribute = { readonly on: (typeof celTexts)[number] | 'destination.port' | 'connection.mtls' } | { readonly on: 'request.headers'; readonly name: string } // prettier-ignore
const celTexts = [
  'request.method', 'request.url_path', 'connection.requested_server_name', 'connection.uri_san_peer_certificate',
] as const // prettier-ignore

/** `matches` finds its expression of RE2 anywhere; `between` is of numbers, both ends included; `present` is of headers, `true` of booleans. */
export type CelComparison =
  | { readonly is: 'one-of'; readonly values: readonly string[] }
  | { readonly is: 'prefix' | 'suffix' | 'contains' | 'matches'; readonly value: string }
  | { readonly is: 'between'; readonly from: number; readonly to: number }
  | { readonly is: 'present' | 'true' }

/** What a request has of the attributes. What it does not have is undefined. */
export interface CelFacts {
  text(attribute: (typeof celTexts)[number]): string | undefined
  /** The values of a header, none if it is not there; undefined without HTTP. */
  header(name: string): readonly string[] | undefined
  readonly port: number | undefined
  readonly mtls: boolean
}

/**
 * Reads a condition.
 * @throws Failure `policy.cel` with what is wrong and at which character
 */
export function parseCel(text: string): CelCondition {
  if (text.length > maxText) throw wrong(`a condition has at most ${maxText} characters, this one ${text.length}`)
  const parsed = parsedText(text)
  const reading: Reading = { positions: parsed.sourceInfo?.positions ?? {}, tests: 0 }
  return { text, tree: toTree(parsed.expr, false, reading) }
}

/** Whether a condition holds. A test of what the request does not have is true if `unknown` is, negated or not: the refusing side of its rule. */
export function celHolds(tree: CelTree, facts: CelFacts, unknown: boolean): boolean {
  switch (tree.kind) {
    case 'all':
      return tree.of.every((one) => celHolds(one, facts, unknown))
    case 'any':
      return tree.of.some((one) => celHolds(one, facts, unknown))
    case 'test': {
      const result = testHolds(tree, facts)
      return result === undefined ? unknown : result !== tree.not
    }
    default:
      throw new Error(`bug: condition ${JSON.stringify(tree satisfies never)}`)
  }
}

function testHolds({ attribute, comparison }: CelTest, facts: CelFacts): boolean | undefined {
  if (attribute.on === 'connection.mtls') return facts.mtls
  if (attribute.on === 'destination.port') {
    return facts.port === undefined || comparison.is !== 'between'
      ? undefined
      : facts.port >= comparison.from && facts.port <= comparison.to
  }
  if (attribute.on !== 'request.headers') return compared(comparison, facts.text(attribute.on))
  const values = facts.header(attribute.name)
  if (comparison.is === 'present') return values && values.length > 0
  // A proxy joins repeated headers with commas: a value with one can be read in two ways.
  return values?.length === 1 && !values[0]!.includes(',') ? compared(comparison, values[0]) : undefined
}

function compared(comparison: CelComparison, text: string | undefined): boolean | undefined {
  if (text === undefined) return undefined
  switch (comparison.is) {
    case 'one-of':
      return comparison.values.includes(text)
    case 'prefix':
      return text.startsWith(comparison.value)
    case 'suffix':
      return text.endsWith(comparison.value)
    case 'contains':
      return text.includes(comparison.value)
    case 'matches':
      return expression(comparison.value).test(text)
    case 'between':
    case 'present':
    case 'true':
      throw new Error(`bug: \`${comparison.is}\` of a text`)
    default:
      throw new Error(`bug: comparison ${JSON.stringify(comparison satisfies never)}`)
  }
}

// Compiled once each: RE2 takes time linear in the text, whatever the expression.
const expressions = new Map<string, RE2JS>()
function expression(regex: string): RE2JS {
  const known = expressions.get(regex)
  if (known) return known
  const made = RE2JS.compile(regex)
  if (expressions.size >= maxExpressions) expressions.clear()
  expressions.set(regex, made)
  return made
}

type Parsed = ReturnType<typeof parse>
type Expr = Parsed['expr']
interface Reading {
  readonly positions: Readonly<Record<string, number>>
  tests: number
}

function parsedText(text: string): Parsed {
  try {
    return parse(text)
  } catch (cause) {
    if (!(cause instanceof Error)) throw cause
    const { location, rawMessage } = cause as { location?: { start?: { offset?: number } }; rawMessage?: string }
    const said = (rawMessage ?? cause.message).split('\n')[0]!.slice(0, maxTold)
    throw wrong(`${said}${location?.start?.offset === undefined ? '' : `, at character ${location.start.offset + 1}`}`)
  }
}

/** The tree of an expression that is true or false, negations pushed down to its tests. */
function toTree(expr: Expr, not: boolean, reading: Reading): CelTree {
  const { exprKind } = expr
  if (exprKind.case === 'constExpr' && exprKind.value.constantKind.case === 'boolValue') {
    return { kind: exprKind.value.constantKind.value === not ? 'any' : 'all', of: [] }
  }
  if (exprKind.case === 'callExpr' && !exprKind.value.target) {
    const { function: name, args } = exprKind.value
    if (name === '!_') return toTree(args[0]!, !not, reading)
    if (name === '_&&_' || name === '_||_') {
      const of = args.map((arg) => toTree(arg, not, reading))
      return { kind: (name === '_&&_') === not ? 'any' : 'all', of }
    }
    if (name === '_?_:_') {
      const [test, yes, no] = args as [Expr, Expr, Expr]
      const way = (taken: boolean, then: Expr): CelTree => ({
        kind: 'all',
        of: [toTree(test, !taken, reading), toTree(then, not, reading)],
      })
      return { kind: 'any', of: [way(true, yes), way(false, no)] }
    }
  }
  return toTest(expr, not, reading)
}

function toTest(expr: Expr, not: boolean, reading: Reading): CelTest {
  if (++reading.tests > maxTests) throw wrong(`a condition has at most ${maxTests} comparisons`)
  const test = (attribute: CelAttribute, comparison: CelComparison, negated = not): CelTest => ({
    kind: 'test',
    not: negated,
    attribute,
    comparison,
  })
  const { exprKind } = expr
  if (exprKind.case === 'selectExpr' && exprKind.value.testOnly) {
    const { operand, field } = exprKind.value
    if (operand && nameOf(operand) === 'request.headers')
      return test({ on: 'request.headers', name: headerName(field, expr, reading) }, { is: 'present' })
  }
  if (exprKind.case !== 'callExpr') {
    const attribute = attributeOf(expr, reading)
    if (attribute?.on === 'connection.mtls') return test(attribute, { is: 'true' })
    throw outside(expr, reading, 'expected a comparison')
  }

  const { function: name, args, target } = exprKind.value
  if (target) {
    const kind = textFunctions[name]
    if (!kind || args.length !== 1) throw outside(expr, reading, `unknown function \`${name.slice(0, 40)}\``)
    const attribute = textAttribute(target, reading)
    return test(attribute, checkedValue({ is: kind, value: textOf(args[0]!, reading) }, attribute, expr, reading))
  }
  const [left, right] = args as [Expr, Expr]
  if (name === '@in') {
    if (nameOf(right) === 'request.headers')
      return test({ on: 'request.headers', name: headerName(textOf(left, reading), left, reading) }, { is: 'present' })
    if (right.exprKind.case !== 'listExpr') throw outside(right, reading, 'expected a list of constants')
    const { elements } = right.exprKind.value
    const attribute = required(left, reading)
    if (attribute.on === 'destination.port') throw outside(expr, reading, 'compare `destination.port` with `==`, `<` and so on')
    return test(
      textAttribute(left, reading),
      checkedValue({ is: 'one-of', values: elements.map((one) => textOf(one, reading)) }, attribute, expr, reading),
    )
  }
  if (!(name in mirrored))
    throw outside(expr, reading, name in operators ? `\`${operators[name]}\`` : `unknown function \`${name.slice(0, 40)}\``)
  const flipped = !attributeOf(left, reading)
  const attribute = required(flipped ? right : left, reading)
  const constant = flipped ? left : right
  const operator = flipped ? mirrored[name]! : name
  const negated = operator === '_!=_' ? !not : not
  if (attribute.on === 'destination.port')
    return test(attribute, rangeOf(operator, numberOf(constant, reading), constant, reading), negated)
  if (operator !== '_==_' && operator !== '_!=_') throw outside(expr, reading, 'texts are compared with `==` and `!=`')
  if (attribute.on === 'connection.mtls') return test(attribute, { is: 'true' }, booleanOf(constant, reading) ? negated : !negated)
  return test(attribute, checkedValue({ is: 'one-of', values: [textOf(constant, reading)] }, attribute, expr, reading), negated)
}

function rangeOf(operator: string, value: number, at: Expr, reading: Reading): CelComparison {
  if (value < 0 || value > maxPort) throw outside(at, reading, `expected a port from 0 to ${maxPort}`)
  const ranges: Readonly<Record<string, readonly [number, number]>> = {
    '_==_': [value, value],
    '_!=_': [value, value],
    '_<_': [0, value - 1],
    '_<=_': [0, value],
    '_>_': [value + 1, maxPort],
    '_>=_': [value, maxPort],
  }
  const [from, to] = ranges[operator]!
  return { is: 'between', from, to }
}

/** Paths are compared in one spelling, so a condition may only say what every spelling shares (R-7); regular expressions must be readable by RE2. */
function checkedValue(comparison: CelComparison, attribute: CelAttribute, at: Expr, reading: Reading): CelComparison {
  if (comparison.is === 'matches') {
    if (attribute.on === 'request.url_path')
      throw outside(at, reading, '`request.url_path` has several spellings: compare it by `paths` of an operation')
    if (comparison.value.length > maxRegex) throw outside(at, reading, `a regular expression has at most ${maxRegex} characters`)
    try {
      RE2JS.compile(comparison.value)
    } catch (cause) {
      throw outside(at, reading, Failure.from(cause).message.split('\n')[0]!.slice(0, maxTold))
    }
  }
  if (attribute.on !== 'request.url_path') return comparison
  const values = comparison.is === 'one-of' ? comparison.values : 'value' in comparison ? [comparison.value] : []
  for (const value of values) {
    const whole = comparison.is === 'one-of' || comparison.is === 'prefix' ? value : `/x${value}`
    const oneSpelling =
      isCanonicalPath(comparison.is === 'one-of' ? whole : `${whole}x`) && foldPath(value) === value && !severalSpellings.test(value)
    const mayBeAnEscape = comparison.is !== 'one-of' && comparison.is !== 'prefix' && /^[0-9A-Fa-f]/.test(value)
    if (!whole.startsWith('/') || !oneSpelling || mayBeAnEscape) {
      throw outside(
        at,
        reading,
        `\`${value.slice(0, maxTold)}\` can be spelt in several ways, or never is in a path: compare it by \`paths\` of an operation`,
      )
    }
  }
  return comparison
}

function required(expr: Expr, reading: Reading): CelAttribute {
  return attributeOf(expr, reading) ?? fail(outside(expr, reading, `expected one of the attributes ${known}`))
}

function textAttribute(expr: Expr, reading: Reading): CelAttribute {
  const attribute = required(expr, reading)
  if (attribute.on === 'destination.port' || attribute.on === 'connection.mtls')
    throw outside(expr, reading, `\`${attribute.on}\` is no text`)
  return attribute
}

/** An attribute, or undefined for a constant. */
function attributeOf(expr: Expr, reading: Reading): CelAttribute | undefined {
  const { exprKind } = expr
  if (exprKind.case === 'constExpr') return undefined
  if (exprKind.case === 'callExpr' && exprKind.value.function === '_[_]' && nameOf(exprKind.value.args[0]!) === 'request.headers') {
    const key = exprKind.value.args[1]!
    return { on: 'request.headers', name: headerName(textOf(key, reading), key, reading) }
  }
  const name = nameOf(expr)
  if (name?.startsWith('request.headers.'))
    return { on: 'request.headers', name: headerName(name.slice('request.headers.'.length), expr, reading) }
  const plain = [...celTexts, 'destination.port', 'connection.mtls'] as const
  const on = plain.find((one) => one === name)
  if (on) return { on }
  const hint = name === undefined ? undefined : hints[name]
  throw outside(
    expr,
    reading,
    hint ?? `${name === undefined ? 'expected' : `unknown attribute \`${name.slice(0, maxTold)}\`: expected`} one of ${known}`,
  )
}

/** `a.b.c`, or undefined for anything else. */
function nameOf({ exprKind }: Expr): string | undefined {
  if (exprKind.case === 'identExpr') return exprKind.value.name
  if (exprKind.case !== 'selectExpr' || exprKind.value.testOnly || !exprKind.value.operand) return undefined
  const operand = nameOf(exprKind.value.operand)
  return operand === undefined ? undefined : `${operand}.${exprKind.value.field}`
}

function headerName(text: string, at: Expr, reading: Reading): string {
  if (!headerToken.test(text)) throw outside(at, reading, `\`${text.slice(0, maxTold)}\` is not the name of a header in lower case`)
  return text
}

function textOf(expr: Expr, reading: Reading): string {
  const kind = expr.exprKind.case === 'constExpr' ? expr.exprKind.value.constantKind : undefined
  if (kind?.case === 'stringValue') return kind.value
  throw outside(expr, reading, 'expected a text')
}

function numberOf(expr: Expr, reading: Reading): number {
  const kind = expr.exprKind.case === 'constExpr' ? expr.exprKind.value.constantKind : undefined
  if (kind?.case === 'int64Value' || kind?.case === 'uint64Value') return Number(kind.value)
  throw outside(expr, reading, 'expected a whole number')
}

function booleanOf(expr: Expr, reading: Reading): boolean {
  const kind = expr.exprKind.case === 'constExpr' ? expr.exprKind.value.constantKind : undefined
  if (kind?.case === 'boolValue') return kind.value
  throw outside(expr, reading, 'expected `true` or `false`')
}

function outside(expr: Pick<Expr, 'id'>, { positions }: Reading, why: string): Failure {
  const position = positions[String(expr.id)]
  return wrong(`${why}${position === undefined ? '' : `, at character ${position + 1}`}`)
}

const wrong = (what: string): Failure => new Failure('invalid_argument', 'policy.cel', { public: what })
function fail(failure: Failure): never {
  throw failure
}

const textFunctions: Readonly<Record<string, 'prefix' | 'suffix' | 'contains' | 'matches' | undefined>> = {
  startsWith: 'prefix',
  endsWith: 'suffix',
  contains: 'contains',
  matches: 'matches',
}
/** Comparisons, and what they are with their sides exchanged. */
const mirrored: Readonly<Record<string, string>> = {
  '_==_': '_==_',
  '_!=_': '_!=_',
  '_<_': '_>_',
  '_<=_': '_>=_',
  '_>_': '_<_',
  '_>=_': '_<=_',
}
const operators: Readonly<Record<string, string>> = {
  '_+_': 'there is no arithmetic and no concatenation here',
  '_-_': 'there is no arithmetic here',
  '_[_]': 'expected a comparison',
}
const hints: Readonly<Record<string, string>> = {
  'request.path': '`request.path` holds the query: use `request.url_path`',
  'request.host': '`request.host` has several spellings: use `hosts` of an operation',
  'source.address': '`source.address` is a text with a port: use `ipBlocks` of a source',
}
const known = `${[...celTexts, 'destination.port', 'connection.mtls'].map((one) => `\`${one}\``).join(', ')}, \`request.headers['<name>']\``
const headerToken = /^[a-z0-9!#$%&'*+.^_`|~-]{1,128}$/
/** What `normalize.ts` folds. */
const severalSpellings = /[%!$&'()*+,:=@[\]]/
const maxText = 2048
/** R-24: a decision takes no more steps than this. */
const maxTests = 128
const maxRegex = 256
const maxExpressions = 1000
const maxTold = 120
const maxPort = 65_535
