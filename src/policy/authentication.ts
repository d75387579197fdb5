/** `PeerAuthentication` and `RequestAuthentication` of `security.istio.io/v1`: who is believed to be who (authorization.md 1.9). */
import { parseDuration } from '../kernel/duration.ts'
import type { JwtRule, MtlsMode, PeerAuthentication, RequestAuthentication } from './policy-set.ts'
import { attempt, limits, listOf, oneOf, readSelector, readTargetRefs, readValues, textOf, type Reading } from './reading.ts'
import { refuseUnknownKeys, shorten, tell, type MapTree, type Tree } from './yaml-tree.ts'

interface Named {
  readonly name: string
  readonly namespace: string
  readonly createdAt?: number
}

export function readPeerAuthentication(
  tree: MapTree,
  spec: MapTree,
  named: Named,
  { problems, mode, rootNamespace }: Reading,
): PeerAuthentication {
  refuseUnknownKeys(spec, ['selector', 'mtls', 'portLevelMtls'], problems)
  const selector = spec.entries.get('selector')
  const matchLabels = selector ? readSelector(selector, problems) : []
  if (mode === 'strict' && matchLabels.length > 0 && named.namespace === rootNamespace) {
    problems.add(
      selector!,
      'a `PeerAuthentication` of the root namespace with a selector is ignored: leave the selector out, or move it to a namespace',
    )
  }
  const ports = spec.entries.get('portLevelMtls')
  if (ports && matchLabels.length === 0) problems.add(ports, '`portLevelMtls` needs a `selector` with labels')
  const mtls = spec.entries.get('mtls')
  const mtlsMode = mtls && readMode(mtls, problems)
  return {
    namespace: named.namespace,
    name: named.name,
    matchLabels,
    ...(mtlsMode && { mode: mtlsMode }),
    ports: ports ? readPorts(ports, problems) : [],
    ...(named.createdAt === undefined ? {} : { createdAt: named.createdAt }),
    place: tree.place,
  }
}

function readMode(tree: Tree, problems: Reading['problems']): MtlsMode | undefined {
  if (tree.kind === 'null') return undefined
  if (tree.kind !== 'map') return problems.add(tree, `expected a map with \`mode\`, found ${tell(tree)}`)
  refuseUnknownKeys(tree, ['mode'], problems)
  if (!tree.entries.has('mode')) return undefined
  const mode = oneOf(tree, 'mode', mtlsModes, problems)
  return mode === 'UNSET' ? undefined : mode
}

function readPorts(tree: Tree, problems: Reading['problems']): PeerAuthentication['ports'] {
  if (tree.kind !== 'map') return problems.add(tree, `expected a map from ports to \`mode\`, found ${tell(tree)}`) ?? []
  if (tree.entries.size > limits.items) return problems.add(tree, `at most ${limits.items} ports, found ${tree.entries.size}`) ?? []
  return [...tree.entries].flatMap(([key, value]) => {
    if (!portPattern.test(key) || Number(key) > 65_535)
      return problems.add(value, `expected a port from 1 to 65535, found \`${shorten(key)}\``) ?? []
    const mode = readMode(value, problems)
    return [{ port: Number(key), ...(mode && { mode }) }]
  })
}

export function readRequestAuthentication(tree: MapTree, spec: MapTree, named: Named, reading: Reading): RequestAuthentication {
  const { problems, rootNamespace } = reading
  refuseUnknownKeys(spec, ['selector', 'targetRefs', 'targetRef', 'jwtRules'], problems)
  const selector = spec.entries.get('selector')
  const targetRefs = readTargetRefs(spec, { problems, namespace: named.namespace, rootNamespace })
  const rules = spec.entries.get('jwtRules')
  const list = rules ? listOf(rules, limits.items, problems) : undefined
  if (reading.mode === 'strict' && !list?.items.length)
    problems.add(rules ?? spec, 'expected `jwtRules` with at least one rule: without any, no token is read')
  return {
    namespace: named.namespace,
    name: named.name,
    selection: {
      ...(named.namespace === rootNamespace ? {} : { namespace: named.namespace }),
      matchLabels: selector ? readSelector(selector, problems) : [],
      ...(targetRefs && { targetRefs }),
    },
    jwtRules: list?.items.flatMap((item) => readJwtRule(item, reading) ?? []) ?? [],
    place: tree.place,
  }
}

function readJwtRule(rule: Tree, { problems, mode }: Reading): JwtRule | undefined {
  if (rule.kind !== 'map') return problems.add(rule, `expected a map with \`issuer\`, found ${tell(rule)}`)
  refuseUnknownKeys(rule, jwtRuleKeys, problems)
  const issuer = textOf(rule, 'issuer', problems)
  if (issuer?.text === '') problems.add(issuer, 'expected an issuer, found an empty text')
  const jwks = optionalText(rule, 'jwks', problems)
  const jwksUri = optionalText(rule, 'jwksUri', problems)
  if (jwks !== undefined && jwksUri !== undefined) problems.add(rule.entries.get('jwks')!, '`jwks` cannot stand beside `jwksUri`')
  if (jwksUri !== undefined && !keysAddress.test(jwksUri))
    problems.add(rule.entries.get('jwksUri')!, `expected an address of keys, \`https://…\`, found \`${shorten(jwksUri)}\``)
  const texts = (key: string): string[] =>
    rule.entries.has(key) ? (readValues(rule.entries.get(key)!, problems, (text) => text, mode) ?? []) : []
  const timeout = optionalText(rule, 'timeout', problems)
  const timeoutMs = timeout === undefined ? undefined : attempt(() => parseDuration(timeout), rule.entries.get('timeout')!, problems)
  const payload = optionalText(rule, 'outputPayloadToHeader', problems)
  if (!issuer) return undefined
  return {
    issuer: issuer.text,
    audiences: texts('audiences'),
    keys: jwks !== undefined ? { jwks } : jwksUri !== undefined ? { jwksUri } : 'discovered',
    fromHeaders: mapsOf(rule, 'fromHeaders', ['name', 'prefix'], problems).map((item) => ({
      name: textOf(item, 'name', problems)?.text ?? '',
      prefix: optionalText(item, 'prefix', problems) ?? '',
    })),
    fromParams: texts('fromParams'),
    fromCookies: texts('fromCookies'),
    forwardOriginalToken: readBoolean(rule, 'forwardOriginalToken', problems),
    ...(payload === undefined ? {} : { outputPayloadToHeader: payload }),
    outputClaimToHeaders: mapsOf(rule, 'outputClaimToHeaders', ['header', 'claim'], problems).map((item) => ({
      header: textOf(item, 'header', problems)?.text ?? '',
      claim: textOf(item, 'claim', problems)?.text ?? '',
    })),
    ...(timeoutMs === undefined ? {} : { timeout: timeoutMs }),
    spaceDelimitedClaims: texts('spaceDelimitedClaims'),
    place: rule.place,
  }
}

function optionalText(tree: MapTree, key: string, problems: Reading['problems']): string | undefined {
  return tree.entries.has(key) ? textOf(tree, key, problems)?.text : undefined
}

function readBoolean(tree: MapTree, key: string, problems: Reading['problems']): boolean {
  const found = tree.entries.get(key)
  if (!found) return false
  if (found.kind !== 'boolean') problems.add(found, `expected \`true\` or \`false\`, found ${tell(found)}`)
  return found.kind === 'boolean' && found.text === 'true'
}

function mapsOf(tree: MapTree, key: string, keys: readonly string[], problems: Reading['problems']): MapTree[] {
  const found = tree.entries.get(key)
  const list = found && listOf(found, limits.items, problems)
  return (list?.items ?? []).flatMap((item) => {
    if (item.kind !== 'map') return problems.add(item, `expected a map, found ${tell(item)}`) ?? []
    refuseUnknownKeys(item, keys, problems)
    return [item]
  })
}

export const mtlsModes = ['UNSET', 'DISABLE', 'PERMISSIVE', 'STRICT'] as const
const portPattern = /^[1-9]\d{0,4}$/
export const keysAddress = /^https?:\/\/[^/\s]+/
/** What a rule of a `RequestAuthentication` may hold. */
export const jwtRuleKeys = [
  'issuer', 'audiences', 'jwks', 'jwksUri', 'fromHeaders', 'fromParams', 'fromCookies', 'forwardOriginalToken', 'outputPayloadToHeader',
  'outputClaimToHeaders', 'timeout', 'spaceDelimitedClaims',
] as const // prettier-ignore
