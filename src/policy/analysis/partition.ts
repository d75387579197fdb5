/** Values sorted into classes by what policies say about them: within a class nothing tells two values apart, and each class has a value as witness. */
import type { AddressBlock } from '../matching.ts'
import type { Budget } from './budget.ts'
import { classesOf, type Domain, type Regular } from './regular.ts'

/** Values that the same atoms hold for. */
export interface ValueClass<Value> {
  /** Numbers of the atoms that hold, ascending. */
  readonly matched: readonly number[]
  readonly witness: Value
}

/** Texts of a domain by the patterns that match them. @throws BudgetExhausted */
export function partitionTexts(domain: Domain, atoms: readonly Regular[], budget: Budget): ValueClass<string>[] {
  return classesOf(domain, atoms, budget)
}

/** Numbers from one to another, both included. */
export interface NumberRange {
  readonly from: number
  readonly to: number
}

/** Whole numbers by the ranges that hold them; of the numbers that none holds, the first `preferred` one is the witness. */
export function partitionNumbers(whole: NumberRange, atoms: readonly NumberRange[], preferred: readonly number[]): ValueClass<number>[] {
  const cuts = [whole.from, ...preferred, ...atoms.flatMap(({ from, to }) => [from, to + 1])]
  const found = new Map<string, ValueClass<number>>()
  for (const witness of [...preferred, ...cuts]) {
    if (witness < whole.from || witness > whole.to) continue
    const matched = [...atoms.keys()].filter((atom) => witness >= atoms[atom]!.from && witness <= atoms[atom]!.to)
    if (!found.has(matched.join())) found.set(matched.join(), { matched, witness })
  }
  return [...found.values()]
}

/** Addresses of both families by the blocks that hold them. An IPv4 address inside an IPv6 one is the IPv4 address. */
export function partitionAddresses(atoms: readonly AddressBlock[]): ValueClass<string>[] {
  return [...partitionFamily(atoms, ipv4), ...partitionFamily(atoms, ipv6)].reduce<ValueClass<string>[]>((classes, one) => {
    // Both families can have a class that no block holds; it is one class.
    return one.matched.length === 0 && classes.some(({ matched }) => matched.length === 0) ? classes : [...classes, one]
  }, [])
}

function partitionFamily(atoms: readonly AddressBlock[], family: Family): ValueClass<string>[] {
  const begins = new Map<bigint, number[]>()
  const ends = new Map<bigint, number[]>()
  const note = (at: Map<bigint, number[]>, key: bigint, atom: number) => at.set(key, [...(at.get(key) ?? []), atom])
  for (const [index, block] of atoms.entries()) {
    if (block.bytes.length * 8 !== family.bits) continue
    const first = block.bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n)
    note(begins, first, index)
    note(ends, first + (1n << BigInt(family.bits - block.bits)), index)
  }
  const cuts = [...new Set([family.typical, ...family.cuts, ...begins.keys(), ...ends.keys()])].sort((a, b) => (a < b ? -1 : 1))
  const inside = new Set<number>()
  const found = new Map<string, ValueClass<string>>()
  for (const [index, from] of cuts.entries()) {
    for (const atom of ends.get(from) ?? []) inside.delete(atom)
    for (const atom of begins.get(from) ?? []) inside.add(atom)
    const to = cuts[index + 1] ?? 1n << BigInt(family.bits)
    if (to <= from || family.isOther(from)) continue
    const matched = [...inside].sort((a, b) => a - b)
    const key = matched.join()
    // The first address of a block names a network: the next one looks like somebody's.
    const witness = family.format(to - from > 2n && from !== family.typical ? from + 1n : from)
    if (!found.has(key) || from === family.typical) found.set(key, { matched, witness })
  }
  return [...found.values()]
}

interface Family {
  readonly bits: number
  readonly cuts: readonly bigint[]
  /** What stands for addresses that nobody mentions. */
  readonly typical: bigint
  isOther(address: bigint): boolean
  format(address: bigint): string
}

const ipv4: Family = {
  bits: 32,
  cuts: [0n],
  // RFC 5737: 203.0.113.0/24 is for documentation.
  typical: 0xcb007107n,
  isOther: () => false,
  format: (address) => [24n, 16n, 8n, 0n].map((shift) => (address >> shift) & 255n).join('.'),
}
const mappedFrom = 0xffffn << 32n
const ipv6: Family = {
  bits: 128,
  cuts: [0n, mappedFrom, mappedFrom + (1n << 32n)],
  // RFC 3849: 2001:db8::/32 is for documentation.
  typical: (0x20010db8n << 96n) + 7n,
  isOther: (address) => address >= mappedFrom && address < mappedFrom + (1n << 32n),
  format: (address) =>
    Array.from({ length: 8 }, (_, at) => ((address >> BigInt(112 - at * 16)) & 0xffffn).toString(16))
      .join(':')
      .replace(/(?:^|:)0(?::0)+(?:$|:)/, '::'),
}
