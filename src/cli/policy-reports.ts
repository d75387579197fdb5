/** What analysis found, for terminals, pull requests and code scanning. */
import { formatDuration } from '../kernel/duration.ts'
import { assumptions, type Unknown } from '../policy/analysis/answer.ts'
import type { Region, Witness } from '../policy/analysis/difference.ts'
import type { PolicyDiff } from '../policy/analysis/diff.ts'
import { joined } from '../policy/analysis/words.ts'
import type { Finding } from '../policy/analysis/lint.ts'
import type { nearestChange } from '../policy/analysis/nearest.ts'
import type { WhoCan } from '../policy/analysis/who-can.ts'
import type { WorkloadFacts } from '../policy/compile.ts'
import type { Place, PolicyMode } from '../policy/policy-set.ts'
import type { OnboardingRequest, PolicyRequest, ServerApiRequest } from '../policy/request.ts'
import { formatSelector } from '../spiffe/selector.ts'
import { counted } from './output.ts'
import type { RequestLine } from './policy-lines.ts'

/** A request as a line that `vidimus policy eval` reads. */
export function toRequestLine({ spiffeIds, selectors }: WorkloadFacts, request: PolicyRequest): RequestLine {
  const { peer, sourceIp, remoteIp, destinationIp, destinationPort, sni, http, token, filterMetadata, providers } = request
  return {
    workload: {
      identities: [...spiffeIds],
      selectors: selectors.map(({ type, value }) => `${type}:${value}`),
      ...(destinationIp === undefined ? {} : { ip: destinationIp }),
      ...(destinationPort === undefined ? {} : { port: destinationPort }),
    },
    ...(peer && { peer: { principal: peer.spiffeId } }),
    ...(sourceIp === undefined ? {} : { directIp: sourceIp }),
    ...(remoteIp === undefined ? {} : { remoteIp }),
    ...(sni === undefined ? {} : { sni }),
    protocol: http ? 'http' : 'tcp',
    ...(http && { method: http.method, host: http.host, path: http.path }),
    ...(http && http.headers.size > 0 && { headers: Object.fromEntries([...http.headers].map(([name, values]) => [name, [...values]])) }),
    ...(token && { claims: token.claims as NonNullable<RequestLine['claims']> }),
    ...(filterMetadata && { metadata: filterMetadata as NonNullable<RequestLine['metadata']> }),
    ...(providers && { providers: { ...providers } }),
  }
}

/** A request in one line: `GET /orders from spiffe://example.org/web`. */
function requestWords({ peer, http, destinationPort, sourceIp }: PolicyRequest): string {
  const what = http ? `${http.method} ${http.path} at ${http.host}` : `a connection to port ${destinationPort ?? 'unknown'}`
  const more = [...(http?.headers ?? [])].map(([name, values]) => `${name}: ${values.join(', ')}`)
  return `${what} from ${peer?.spiffeId ?? `nobody verified (${sourceIp ?? 'no address'})`}${more.length > 0 ? ` with ${more.join('; ')}` : ''}`
}

/** A call in one line: `BatchCreateEntry of spire.api.server.entry.v1.Entry by admin, entry.admin true`. */
function callWords({ caller, method, attributes }: ServerApiRequest): string {
  const told = Object.entries(attributes).map(
    ([key, value]) => `${key} ${key === 'entry.x509Ttl' ? formatDuration(Number(value)) : String(value)}`,
  )
  return `${method} by ${[caller].flat().join(' and ')}${told.length > 0 ? ` with ${told.join(', ')}` : ''}`
}

/** A node in one line: what it proved, and how. */
function nodeWords({ type, selectors }: OnboardingRequest): string {
  const proved = selectors.map((one) => `\`${formatSelector(one)}\``)
  return `a node with evidence of type ${type}${proved.length > 0 ? ` that proves ${joined(proved, 'and')}` : ' that proves nothing else'}`
}

// Differences.

export type Kind = 'newly-allowed' | 'newly-denied'

/** A region, and everywhere that it is the same. */
interface Found {
  readonly kind: Kind
  readonly region: Region<unknown>
  /** The witness in one line. */
  readonly example: string
  readonly where: readonly string[]
}

/** Every region once: most of them are the same for several kinds of workloads. */
function found({ destinations, targets }: PolicyDiff): Found[] {
  const all = new Map<string, { kind: Kind; region: Region<unknown>; example: string; where: string[] }>()
  const note = <Request>({ newlyAllowed, newlyDenied }: Changed<Request>, where: string, told: (request: Request) => string) => {
    const noteOne = (kind: Kind, region: Region<Request>) => {
      const key = JSON.stringify([kind, region.constraints.toSorted((a, b) => (a.about < b.about ? -1 : 1)), whyWords(region.witness)])
      const before = all.get(key)
      if (before) before.where.push(where)
      else all.set(key, { kind, region, example: told(region.witness.request), where: [where] })
    }
    for (const region of newlyAllowed) noteOne('newly-allowed', region)
    for (const region of newlyDenied) noteOne('newly-denied', region)
  }
  for (const one of destinations) note(one, one.destination.words, requestWords)
  for (const one of targets) {
    if (one.target === 'serverApi') note(one, targetWords.serverApi, callWords)
    else note(one, targetWords.onboarding, nodeWords)
  }
  return [...all.values()]
}

interface Changed<Request> {
  readonly newlyAllowed: readonly Region<Request>[]
  readonly newlyDenied: readonly Region<Request>[]
}

/** Where a difference is that is at no workload. */
const targetWords = { serverApi: "the server's own API", onboarding: 'the admission of nodes' } as const

/** True if something of this kind changed. */
export const hasChange = ({ destinations, targets }: PolicyDiff, kind: Kind): boolean =>
  [...destinations, ...targets].some((one) => (kind === 'newly-allowed' ? one.newlyAllowed : one.newlyDenied).length > 0)

/** Everything that was left open. */
export const openQuestions = ({ unknown, destinations, targets }: PolicyDiff): readonly Unknown[] => [
  ...unknown,
  ...targets.flatMap((one) => one.unknown),
  ...destinations.flatMap(({ destination, unknown: open }) =>
    open.map(({ reason, what }) => ({ reason, what: `${what}, at ${destination.words}` })),
  ),
]

export function diffText(diff: PolicyDiff, inFilters = 0): string {
  const byWhere = Map.groupBy(found(diff), ({ where }) => where.join('\n'))
  const blocks = [...byWhere.values()].map((all) => [`at ${joined(all[0]!.where, 'and')}`, ...all.flatMap(regionLines)].join('\n'))
  return [...blocks, ...openQuestions(diff).map(unknownLine), conclusion(diff, inFilters), assumed(diff.assumptions)].join('\n\n')
}

function regionLines({ kind, example, region: { words, witness, dependsOn } }: Found): string[] {
  return [
    `  ${kind.replace('-', ' ')}: ${words}`,
    ...dependsOn.map(({ reason, what }) => `    depends on ${what} (${reason})`),
    `    for example ${example}`,
    `    ${whyWords(witness)}`,
  ]
}

/** Why it was, and why it is. */
function whyWords({ before, after, replayed, places }: Witness<unknown>): string {
  const told = (decision: Witness['before']) => {
    const by = decision.decidedBy.map(({ policy, rule }) => `rule ${rule} of \`${policy}\``).join(', ')
    return `${decision.allowed ? 'allowed' : 'denied'} (${by === '' ? decision.reason : by})`
  }
  const where = places.length > 0 ? ` at ${placeWords(places[0]!)}` : ''
  return `was ${told(before)}, is ${told(after)}${where}${replayed ? '' : '; not replayed, for what it depends on'}`
}

const placeWords = ({ document, line, column }: Place): string => `${document}:${line}:${column}`
export const unknownLine = ({ reason, what }: Unknown): string => `unknown (${reason}): ${what}`

/** `inFilters`: how many examples the filters of a proxy were asked about as well. */
export function conclusion(diff: PolicyDiff, inFilters = 0): string {
  const compared = counted(diff.compared, 'kind of workload', 'kinds of workloads')
  const also = diff.targets.map(({ target }) => targetWords[target])
  const everywhere = joined([compared, ...also], 'and')
  if (diff.answer === 'same') return `no request is decided differently: proved for ${everywhere}`
  const more = [...diff.destinations, ...diff.targets].reduce((sum, one) => sum + one.more.newlyAllowed + one.more.newlyDenied, 0)
  const count = (kind: Kind) => found(diff).filter((one) => one.kind === kind).length
  const open = openQuestions(diff).length
  const changed = diff.targets.flatMap(({ target, newlyAllowed, newlyDenied }) =>
    newlyAllowed.length + newlyDenied.length > 0 ? [targetWords[target]] : [],
  )
  const where = [
    ...(diff.destinations.length > 0 || changed.length === 0 ? [`${diff.destinations.length} of ${compared}`] : []),
    ...changed,
  ]
  return [
    `${count('newly-allowed')} newly allowed, ${count('newly-denied')} newly denied${more > 0 ? ` (and ${more} more: --most lists them)` : ''}`,
    `at ${joined(where, 'and')}; every example was replayed on the evaluator${inFilters > 0 ? `, ${inFilters} on the filters of a proxy as well` : ''}`,
    ...(open > 0 ? [`${counted(open, 'question')} left open`] : []),
  ].join('; ')
}

const assumed = (list: readonly string[]): string => `assuming:\n${list.map((one) => `  - ${one}`).join('\n')}`

export function diffMarkdown(diff: PolicyDiff): string {
  const rows = found(diff).map(({ kind, where, example, region: { words, witness, dependsOn } }) =>
    [
      kind === 'newly-allowed' ? '**newly allowed**' : 'newly denied',
      joined(where, 'and'),
      `${words}${dependsOn.map(({ what }) => `; depends on ${what}`).join('')}`,
      example,
      whyWords(witness),
    ]
      .map(cell)
      .join(' | '),
  )
  const table = ['| change | at | requests | for example | why |', '| --- | --- | --- | --- | --- |', ...rows.map((row) => `| ${row} |`)]
  const open = openQuestions(diff).map((one) => `- ${unknownLine(one)}`)
  return [
    '### What the policies change',
    conclusion(diff),
    ...(rows.length > 0 ? [table.join('\n')] : []),
    ...(open.length > 0 ? [open.join('\n')] : []),
    `<details><summary>assuming</summary>\n\n${diff.assumptions.map((one) => `- ${one}`).join('\n')}\n</details>`,
  ].join('\n\n')
}

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ')

export function diffSarif(diff: PolicyDiff): string {
  const results = found(diff).map(({ kind, where, example, region: { words, witness } }) => ({
    rule: kind,
    level: kind === 'newly-allowed' ? ('warning' as const) : ('note' as const),
    text: `${kind.replace('-', ' ')} at ${joined(where, 'and')}: ${words}; for example ${example}`,
    places: witness.places.slice(0, 1),
  }))
  const open = openQuestions(diff).map((one) => ({
    rule: 'unknown',
    level: 'warning' as const,
    text: unknownLine(one),
    places: [],
  }))
  return sarif([...results, ...open], {
    'newly-allowed': 'requests that the new policies allow and the old ones do not',
    'newly-denied': 'requests that the new policies deny and the old ones do not',
    unknown: 'a part of the comparison that was left open',
  })
}

export interface SarifResult {
  readonly rule: string
  readonly level: 'error' | 'warning' | 'note'
  readonly text: string
  readonly places: readonly Place[]
}

/** A log of SARIF 2.1.0. */
export function sarif(results: readonly SarifResult[], rules: Readonly<Record<string, string>>): string {
  const log = {
    $schema: 'https://json.schemastore.org/sarif-2.1.0.json',
    version: '2.1.0',
    runs: [
      {
        tool: {
          driver: { name: 'vidimus', rules: Object.entries(rules).map(([id, text]) => ({ id, shortDescription: { text } })) },
        },
        results: results.map(({ rule, level, text, places }) => ({
          ruleId: rule,
          level,
          message: { text },
          locations: places.map(({ document, line, column }) => ({
            physicalLocation: { artifactLocation: { uri: document }, region: { startLine: line, startColumn: column } },
          })),
        })),
      },
    ],
  }
  return JSON.stringify(log, undefined, 2)
}

/** A difference as JSON has it: witnesses as lines of `vidimus policy eval`. */
export function diffValue(diff: PolicyDiff): unknown {
  const { answer, destinations, targets, unknown, compared, assumptions } = diff
  const toRegion =
    (facts: WorkloadFacts) =>
    ({ constraints, words, witness, dependsOn }: Region) => ({
      words,
      constraints,
      witness: {
        request: toRequestLine(facts, witness.request),
        before: witness.before,
        after: witness.after,
        replayed: witness.replayed,
        places: witness.places,
      },
      dependsOn,
    })
  return {
    answer,
    compared,
    destinations: destinations.map(({ destination, newlyAllowed, newlyDenied, more, unknown: open, proof }) => ({
      workloads: destination.words,
      newlyAllowed: newlyAllowed.map(toRegion(destination.facts)),
      newlyDenied: newlyDenied.map(toRegion(destination.facts)),
      more,
      unknown: open,
      proof,
    })),
    targets,
    unknown,
    assumptions,
  }
}

// The other questions.

export function whoCanText({ callers, never, unknown }: WhoCan, mode: PolicyMode): string {
  const blocks = callers.flatMap(({ words, can, conditions, more, live, witness }) => [
    `${can === 'always' ? 'always' : 'some'.padEnd(6)}  ${words}`,
    ...conditions.map((one) => `        if ${one}`),
    ...(more > 0 ? [`        or one of ${more} more conditions`] : []),
    ...(live.length > 0 ? [`        known: ${joined(live, 'and')}`] : []),
    `        for example ${requestWords(witness)}`,
  ])
  return [
    ...(blocks.length === 0 && unknown.length === 0 ? ['nobody can'] : blocks),
    ...(never.length > 0 ? [`never   known: ${joined(never, 'and')}`] : []),
    ...unknown.map(unknownLine),
    '',
    assumed(assumptions(mode)),
  ].join('\n')
}

export function nearestLines(nearest: ReturnType<typeof nearestChange>, isAllowed: boolean): string[] {
  const other = isAllowed ? 'denied' : 'allowed'
  switch (nearest) {
    case 'never':
      return [`no request at all is ${other} at this workload`]
    case 'outside':
      return ['such a request is refused before any rule is read, whatever else it asks']
    case 'unknown':
      return ['unknown (budget): what would have to be different']
    default:
      return [
        `it would be ${other} with ${joined(nearest.changes, 'and')}`,
        `for example ${requestWords(nearest.request)}, which was replayed`,
      ]
  }
}

export function lintText(findings: readonly Finding[], unknown: readonly Unknown[]): string {
  const lines = findings.flatMap(({ rule, level, place, policy, sentence, fix }) => [
    `${place ? `${placeWords(place)}: ` : ''}${level} ${rule}${policy === undefined ? '' : ` (${policy})`}`,
    `  ${sentence}`,
    `  fix: ${fix}`,
  ])
  const count = (level: Finding['level']) => findings.filter((one) => one.level === level).length
  const total = `${counted(count('error'), 'error')}, ${counted(count('warning'), 'warning')}, ${counted(count('note'), 'note')}`
  return [...lines, ...unknown.map(unknownLine), findings.length === 0 ? 'nothing is suspicious' : total].join('\n')
}

/** RFC 4180, without a line that a spreadsheet would run. */
export function csvOf(rows: readonly (readonly string[])[]): string {
  const cellOf = (text: string) => `"${(/^[=+\-@]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`
  return rows.map((row) => `${row.map(cellOf).join(',')}\r\n`).join('')
}
