import { hex } from '../../src/kernel/bytes.ts'
import { describe, expect, test } from 'vitest'
import { checkDnsNames, isDnsName } from '../../src/ca/dns-name.ts'
import { issuanceProfile, lifetimeFor } from '../../src/ca/profile.ts'
import { Serials } from '../../src/ca/serial.ts'
import { hours, minutes, seconds } from '../../src/kernel/duration.ts'
import { systemRandom } from '../../src/kernel/random.ts'

describe('the profile', () => {
  test('a standard lifetime above the longest is refused', () => {
    expect(() => issuanceProfile({ svid: { x509: hours(2), x509Longest: hours(1) } })).toThrow(
      expect.objectContaining({ reason: 'profile.standard-above-longest' }),
    )
  })

  test('C-2 a backdate above five minutes is refused', () => {
    expect(() => issuanceProfile({ backdate: minutes(5) + 1 })).toThrow(expect.objectContaining({ reason: 'profile.out-of-range' }))
    expect(issuanceProfile({ backdate: minutes(5) }).backdate).toBe(minutes(5))
  })

  test('what is left out has a safe default', () => {
    expect(issuanceProfile()).toMatchObject({
      x509: { workload: { standard: hours(1) }, agent: { standard: hours(1) }, server: { standard: hours(1) } },
      jwt: { standard: minutes(5) },
      ca: { lifetime: hours(24), keyType: 'ec-p256', jwtKeyType: 'ec-p256', pathLength: 0 },
      backdate: seconds(30),
    })
  })
})

describe('the lifetime that is granted', () => {
  const limits = { standard: hours(1), longest: hours(2) }

  test('more than the longest is refused, not capped', () => {
    expect(() => lifetimeFor(limits, hours(2) + 1)).toThrow(expect.objectContaining({ reason: 'ca.lifetime-too-long' }))
    expect(lifetimeFor(limits, hours(2))).toBe(hours(2))
  })

  test.for([-1, 1, 999, NaN])('%s ms is refused as too short', (asked) => {
    expect(() => lifetimeFor(limits, asked)).toThrow(expect.objectContaining({ reason: 'ca.lifetime-too-short' }))
  })

  test('the standard is granted when nothing is asked', () => {
    expect(lifetimeFor(limits, undefined)).toBe(hours(1))
    expect(lifetimeFor(limits, 0)).toBe(hours(1))
  })
})

describe('C-13 DNS names', () => {
  const bad = [
    '',
    '.',
    'a.',
    '.a',
    'a..b',
    '*.example.org',
    'exa mple',
    '-a.org',
    'a-.org',
    'a_b.org',
    '10.0.0.1',
    'a.1',
    '::1',
    'ä.org',
    'a\0.org',
    `${'a'.repeat(64)}.org`,
    'a.'.repeat(126) + 'ab',
  ]
  test.for(bad)('refuses `%s`', (name) => {
    expect(() => checkDnsNames([name])).toThrow(expect.objectContaining({ reason: 'ca.dns-name' }))
  })

  test('refuses more names than any service has', () => {
    expect(() => checkDnsNames(Array.from({ length: 65 }, (_, index) => `n${index}.org`))).toThrow(
      expect.objectContaining({ reason: 'ca.too-many-dns-names' }),
    )
  })

  test.for(['a', 'a.b', 'xn--4ca.org', 'A-1.example.ORG', `${'a'.repeat(63)}.org`, '1.2.3.a'])('accepts `%s`', (name) => {
    expect(isDnsName(name)).toBe(true)
  })
})

describe('C-1 serial numbers', () => {
  test('a random source that repeats itself issues nothing', () => {
    const serials = new Serials({ bytes: (count) => new Uint8Array(count).fill(7) })
    serials.next()
    expect(() => serials.next()).toThrow(expect.objectContaining({ reason: 'ca.serial-repeated' }))
  })

  test('no two of many are the same', () => {
    const serials = new Serials(systemRandom)
    const drawn = new Set(Array.from({ length: 100_000 }, () => hex(serials.next())))
    expect(drawn.size).toBe(100_000)
  })

  test('they have 16 octets, no sign, no leading zero, and every other bit varies', () => {
    const serials = new Serials(systemRandom)
    const ones = Array.from({ length: 128 }, () => 0)
    for (let drawn = 0; drawn < 4000; drawn++) {
      const serial = serials.next()
      expect(serial).toHaveLength(16)
      for (let bit = 0; bit < 128; bit++) ones[bit]! += (serial[bit >> 3]! >> (7 - (bit & 7))) & 1
    }
    expect(ones.slice(0, 2)).toEqual([0, 4000])
    // Eight standard deviations from the mean of a fair coin.
    for (const count of ones.slice(2)) expect(Math.abs(count - 2000)).toBeLessThan(8 * Math.sqrt(1000))
  })
})
