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

/** CI draws a tenth of a million; `npm run test:serials` ten million. */
const draws = Number(process.env['VIDIMUS_SERIALS'] ?? 100_000)
/** A fair source is as far away once in more than a hundred million tests. */
const unlikely = 8

describe('C-1 serial numbers', () => {
  test('a random source that repeats itself issues nothing', () => {
    const serials = new Serials({ bytes: (count) => new Uint8Array(count).fill(7) })
    serials.next()
    expect(() => serials.next()).toThrow(expect.objectContaining({ reason: 'ca.serial-repeated' }))
  })

  test(`no two of ${draws} are the same, no octet of them prefers a value, and none tells of the next`, () => {
    const serials = new Serials(systemRandom)
    const drawn = new BigUint64Array(draws)
    const [octets, pairs] = [new Uint32Array(16 * 256), new Uint32Array(16 * 16)]
    let before: Uint8Array | undefined
    for (let count = 0; count < draws; count++) {
      const serial = serials.next()
      // Half of it tells them apart as well.
      drawn[count] = Buffer.from(serial.buffer, serial.byteOffset).readBigUInt64LE(8)
      for (let place = 0; place < 16; place++) octets[place * 256 + serial[place]!]!++
      if (before) pairs[(before[15]! & 0x0f) * 16 + (serial[15]! & 0x0f)]!++
      before = serial
    }
    drawn.sort()
    expect(drawn.findIndex((one, place) => place > 0 && one === drawn[place - 1])).toBe(-1)
    expect([...octets.subarray(0, 0x40), ...octets.subarray(0x80, 0x100)].every((count) => count === 0)).toBe(true)
    expect(surprise(octets.subarray(0x40, 0x80)), 'the first octet').toBeLessThan(unlikely)
    for (let place = 1; place < 16; place++)
      expect(surprise(octets.subarray(place * 256, (place + 1) * 256)), `octet ${place}`).toBeLessThan(unlikely)
    expect(surprise(pairs), 'one serial number and the next').toBeLessThan(unlikely)
  })

  test('a source that loses one bit in fifty-six would be seen', () => {
    const lossy = { bytes: (count: number) => systemRandom.bytes(count).map((octet, place) => (place % 7 === 0 ? octet & 0x7f : octet)) }
    const serials = new Serials(lossy)
    const octets = new Uint32Array(256)
    for (let count = 0; count < 20_000; count++) octets[serials.next()[15]!]!++
    expect(surprise(octets)).toBeGreaterThan(unlikely)
  })

  /** Pearson's statistic against a fair source, in standard deviations above what is expected (NIST SP 800-22 section 3). */
  function surprise(counts: Uint32Array): number {
    const expected = counts.reduce((sum, count) => sum + count, 0) / counts.length
    const statistic = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0)
    const freedom = counts.length - 1
    return (statistic - freedom) / Math.sqrt(2 * freedom)
  }

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
