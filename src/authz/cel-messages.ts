/** Conditions as the expressions that a proxy runs, with a guard before every test: an expression that fails matches nothing there, also in a rule that denies (authorization.md 2.4). */
import { create } from '@bufbuild/protobuf'
import type { CelAttribute, CelComparison, CelTest, CelTree } from '../policy/cel.ts'
import { type Expr, ExprSchema } from '../rpc/gen/google/api/expr/v1alpha1/syntax_pb.ts'

/** `unknown` is what a test of something that is not there is, as in the evaluator; without `http` there is no request to ask about. */
export function toExpression(tree: CelTree, { unknown, http }: { readonly unknown: boolean; readonly http: boolean }): Expr {
  const expression = expressionOf(tree, { unknown, http })
  number(expression, 0n)
  return expression
}

interface At {
  readonly unknown: boolean
  readonly http: boolean
}

function expressionOf(tree: CelTree, at: At): Expr {
  if (tree.kind === 'test') return guarded(tree, at)
  const of = tree.of.map((one) => expressionOf(one, at))
  const name = tree.kind === 'all' ? '_&&_' : '_||_'
  return of.length === 0 ? boolean(tree.kind === 'all') : of.reduce((left, right) => call(name, left, right))
}

function guarded(test: CelTest, { unknown, http }: At): Expr {
  const { attribute, comparison } = test
  if (!http && attribute.on.startsWith('request.')) return boolean(unknown)
  const asked = test.not ? call('!_', compared(attribute, comparison)) : compared(attribute, comparison)
  const known = comparison.is === 'present' ? undefined : knownOf(attribute)
  if (!known) return asked
  return unknown ? call('_||_', call('!_', known), asked) : call('_&&_', known, asked)
}

/** Undefined for what is always there. */
function knownOf(attribute: CelAttribute): Expr | undefined {
  switch (attribute.on) {
    case 'request.headers':
      return call('_&&_', isThere(attribute.name), call('!_', method(valueOf(attribute), 'contains', text(','))))
    case 'connection.uri_san_peer_certificate':
      return field('connection', 'mtls')
    case 'connection.requested_server_name':
      return call('_!=_', valueOf(attribute), text(''))
    case 'request.method':
    case 'request.url_path':
    case 'destination.port':
    case 'connection.mtls':
      return undefined
    default:
      throw new Error(`bug: attribute ${JSON.stringify(attribute satisfies never)}`)
  }
}

function compared(attribute: CelAttribute, comparison: CelComparison): Expr {
  const value = () => valueOf(attribute)
  switch (comparison.is) {
    case 'one-of':
      return oneOf(comparison.values.map((one) => call('_==_', value(), text(one))))
    case 'prefix':
      return method(value(), 'startsWith', text(comparison.value))
    case 'suffix':
      return method(value(), 'endsWith', text(comparison.value))
    case 'contains':
      return method(value(), 'contains', text(comparison.value))
    case 'matches':
      return method(value(), 'matches', text(comparison.value))
    case 'between':
      return call('_&&_', call('_>=_', value(), whole(comparison.from)), call('_<=_', value(), whole(comparison.to)))
    case 'present':
      return attribute.on === 'request.headers' ? isThere(attribute.name) : boolean(true)
    case 'true':
      return value()
    default:
      throw new Error(`bug: comparison ${JSON.stringify(comparison satisfies never)}`)
  }
}

function valueOf(attribute: CelAttribute): Expr {
  if (attribute.on === 'request.headers') return call('_[_]', field('request', 'headers'), text(attribute.name))
  const [object, name] = attribute.on.split('.') as [string, string]
  return field(object, name)
}

const oneOf = (of: readonly Expr[]): Expr => (of.length === 0 ? boolean(false) : of.reduce((left, right) => call('_||_', left, right)))
const isThere = (header: string): Expr => call('@in', text(header), field('request', 'headers'))
const text = (value: string): Expr =>
  create(ExprSchema, { exprKind: { case: 'constExpr', value: { constantKind: { case: 'stringValue', value } } } })
const boolean = (value: boolean): Expr =>
  create(ExprSchema, { exprKind: { case: 'constExpr', value: { constantKind: { case: 'boolValue', value } } } })
const whole = (value: number): Expr =>
  create(ExprSchema, { exprKind: { case: 'constExpr', value: { constantKind: { case: 'int64Value', value: BigInt(value) } } } })
const field = (object: string, name: string): Expr =>
  create(ExprSchema, {
    exprKind: { case: 'selectExpr', value: { operand: { exprKind: { case: 'identExpr', value: { name: object } } }, field: name } },
  })
const call = (name: string, ...args: Expr[]): Expr =>
  create(ExprSchema, { exprKind: { case: 'callExpr', value: { function: name, args } } })
const method = (target: Expr, name: string, ...args: Expr[]): Expr =>
  create(ExprSchema, { exprKind: { case: 'callExpr', value: { target, function: name, args } } })

/** Every part of an expression has a number of its own; returns the last one given. */
function number(expression: Expr, last: bigint): bigint {
  const { exprKind } = expression
  expression.id = last + 1n
  if (exprKind.case === 'selectExpr' && exprKind.value.operand) return number(exprKind.value.operand, expression.id)
  if (exprKind.case !== 'callExpr') return expression.id
  const { target, args } = exprKind.value
  return [...(target ? [target] : []), ...args].reduce((before, part) => number(part, before), expression.id)
}
