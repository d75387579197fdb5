/** Workloads by the policies that select them: classes, so that an answer holds for workloads that do not exist yet. */
import { parseSpiffeId, type SpiffeId } from '../../spiffe/id.ts'
import type { Selector } from '../../spiffe/selector.ts'
import { idMatches, type WorkloadFacts } from '../compile.ts'
import { formatMatch } from '../explain.ts'
import type { IdMatch, Policy, PolicySet, Selection } from '../policy-set.ts'
import type { Budget } from './budget.ts'
import { spiffeIds } from './domains.ts'
import { partitionTexts } from './partition.ts'
import { peerPattern } from './patterns.ts'
import { anyText, literal, regular, sequence } from './regular.ts'
import { joined } from './words.ts'

/** Workloads that the same policies select, in every set that is compared. */
export interface Destination {
  /** ``workloads in namespace `shop` with `app=orders` `` */
  readonly words: string
  /** A workload of this class. */
  readonly facts: WorkloadFacts
}

/** What the classes take for granted; printed with every answer. */
export const destinationAssumptions: readonly string[] = [
  'a workload has one SPIFFE ID and one value for each label',
  'a workload whose SPIFFE ID is `/ns/<name>/…` is in that namespace',
]

/**
 * A class for every set of policies that some workload can have, most specific first.
 * @throws BudgetExhausted
 */
export function destinationsOf(sets: readonly PolicySet[], budget: Budget): Destination[] {
  const selections = sets.flatMap(selectionsOf)
  const found = new Map<string, { readonly place: PlaceOfWorkload; readonly labels: Labels; others: number; readonly alive: number }>()
  for (const place of placesOfWorkloads(selections, trustDomainIn(sets), budget)) {
    const alive = [...selections.keys()].filter((index) => selectsPlace(selections[index]!, place))
    for (const { labels, selected } of labelled(selections, alive, budget)) {
      const key = selected.join()
      const before = found.get(key)
      if (before) before.others++
      else found.set(key, { place, labels, others: 0, alive: selected.length })
    }
  }
  return [...found.values()]
    .sort((a, b) => b.alive - a.alive)
    .map(({ place, labels, alive, others }) => ({
      words: alive === 0 ? (found.size === 1 ? 'all workloads' : 'all other workloads') : destinationWords(place, labels, others),
      facts: { spiffeIds: [place.id], selectors: [...namespaceSelector(place), ...labels.map(labelSelector)] },
    }))
}

/** A workload that somebody named. */
export const namedDestination = (facts: WorkloadFacts): Destination => ({
  words: `workload ${joined(
    facts.spiffeIds.map((id) => `\`${id}\``),
    'and',
  )}`,
  facts,
})

/** Everything that selects workloads. What is attached to gateways selects none. */
function selectionsOf({ policies, peerAuthentications, requestAuthentications, rootNamespace }: PolicySet): Selection[] {
  const ofPeers = peerAuthentications.map(({ namespace, matchLabels }): Selection => ({
    matchLabels,
    ...(namespace === rootNamespace ? {} : { namespace }),
  }))
  const ofRules = [...policies.filter(({ target }) => target === 'workload'), ...requestAuthentications].map(({ selection }) => selection)
  return [...ofRules, ...ofPeers].filter(({ targetRefs }) => !targetRefs)
}

type Labels = readonly { readonly key: string; readonly value: string }[]

interface PlaceOfWorkload {
  readonly id: SpiffeId
  readonly namespace: string | undefined
  /** Patterns of policies that the ID fulfils, as they were written. */
  readonly patterns: readonly string[]
}

/** Every combination of namespace and identity that policies tell apart. */
function placesOfWorkloads(selections: readonly Selection[], trustDomain: string, budget: Budget): PlaceOfWorkload[] {
  const namespaces = [...new Set(selections.flatMap(({ namespace }) => namespace ?? []))]
  const patterns = [
    ...new Map(selections.flatMap(({ identities = [] }) => identities).map((one): [string, IdMatch] => [formatMatch(one), one])).values(),
  ]
  const elsewhere = unusedName(namespaces)
  if (patterns.length === 0) {
    return [...namespaces, elsewhere].map((namespace) => ({
      namespace,
      id: parseSpiffeId(`spiffe://${trustDomain}/ns/${namespace}/sa/any`),
      patterns: [],
    }))
  }
  const inNamespace = (name: string) => sequence(regular('spiffe://[^/]+/ns/'), literal(name), literal('/'), anyText)
  const atoms = [
    ...patterns.map((one) => peerPattern(one, 'strict')),
    ...namespaces.map(inNamespace),
    regular('spiffe://[^/]+/ns/[^/]+/.*'),
  ]
  const inSome = atoms.length - 1
  return partitionTexts(spiffeIds, atoms, budget).flatMap(({ matched, witness }) => {
    const id = parseSpiffeId(witness)
    const fulfilled = matched.filter((atom) => atom < patterns.length).map((atom) => patterns[atom]!)
    // An ID that is named says more than the patterns it fulfils as well.
    const exactly = fulfilled.filter(({ kind }) => kind === 'id')
    const texts = (exactly.length > 0 ? exactly : fulfilled).map(formatMatch)
    const named = matched.filter((atom) => atom >= patterns.length && atom < inSome).map((atom) => namespaces[atom - patterns.length]!)
    if (named.length > 0) return [{ id, namespace: named[0]!, patterns: texts }]
    if (matched.includes(inSome)) return [{ id, namespace: undefined, patterns: texts }]
    return [undefined, ...namespaces].map((namespace) => ({ id, namespace, patterns: texts }))
  })
}

function selectsPlace({ namespace, identities }: Selection, place: PlaceOfWorkload): boolean {
  if (namespace !== undefined && namespace !== place.namespace) return false
  return !identities || identities.some((match) => idMatches(match, place.id))
}

/** The sets of selections that labels can make of those alive: by each value that one of them asks for, and by none of these values. */
function labelled(
  selections: readonly Selection[],
  alive: readonly number[],
  budget: Budget,
  labels: Labels = [],
): { readonly labels: Labels; readonly selected: readonly number[] }[] {
  budget.step(alive.length + 1)
  const open = alive.flatMap((index) => selections[index]!.matchLabels).find(({ key }) => labels.every((label) => label.key !== key))
  if (!open) {
    const has = (wanted: { key: string; value: string }) => labels.some(({ key, value }) => key === wanted.key && value === wanted.value)
    return [
      { labels: labels.filter(({ value }) => value !== ''), selected: alive.filter((index) => selections[index]!.matchLabels.every(has)) },
    ]
  }
  const asked = alive.flatMap((index) => selections[index]!.matchLabels.flatMap(({ key, value }) => (key === open.key ? [value] : [])))
  return [...new Set(asked), ''].flatMap((value) => {
    budget.node()
    const still = alive.filter((index) => selections[index]!.matchLabels.every((one) => one.key !== open.key || one.value === value))
    return labelled(selections, still, budget, [...labels, { key: open.key, value }])
  })
}

function destinationWords({ namespace, id, patterns }: PlaceOfWorkload, labels: Labels, others: number): string {
  const parts = [
    ...(patterns.length > 0
      ? [
          `with identity ${joined(
            patterns.map((one) => `\`${one}\``),
            'and',
          )}`,
        ]
      : []),
    ...(namespace === undefined || (others > 0 && patterns.length > 0) ? [] : [`in namespace \`${namespace}\``]),
    ...(labels.length > 0
      ? [
          `labelled ${joined(
            labels.map(({ key, value }) => `\`${key}=${value}\``),
            'and',
          )}`,
        ]
      : []),
  ]
  if (parts.length === 0) return `workloads such as \`${id}\``
  return `workloads ${parts.join(' ')}`
}

const namespaceSelector = ({ namespace }: PlaceOfWorkload): Selector[] =>
  namespace === undefined ? [] : [{ type: 'k8s', value: `ns:${namespace}` }]
const labelSelector = ({ key, value }: { key: string; value: string }): Selector => ({ type: 'k8s', value: `pod-label:${key}:${value}` })

/** A trust domain that the policies know, for examples. */
function trustDomainIn(sets: readonly PolicySet[]): string {
  const text = sets.flatMap(({ policies }) => policies.flatMap(idsNamedIn)).find((id) => id.startsWith('spiffe://'))
  return /^spiffe:\/\/([a-z0-9._-]+)(?:\/|$)/.exec(text ?? '')?.[1] ?? 'example.org'
}

function idsNamedIn({ rules }: Policy): string[] {
  return rules.flatMap(({ from }) =>
    from === 'any'
      ? []
      : from.flat().flatMap((clause) => (clause.on === 'peer' ? clause.anyOf.map((match) => (match.kind === 'id' ? match.id : '')) : [])),
  )
}

function unusedName(names: readonly string[]): string {
  const all = new Set(names)
  for (let index = 0; ; index++) {
    const name = index === 0 ? 'any' : `any-${index}`
    if (!all.has(name)) return name
  }
}
