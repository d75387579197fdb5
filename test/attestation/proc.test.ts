import fc from 'fast-check'
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { parseAccounts, parseStat, parseStatus } from '../../src/attestation/proc.ts'

const stat = (name: string, startTime = '4711') =>
  `42 (${name}) S 1 42 42 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 ${startTime} 1000 200 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n`
const status = (change: (text: string) => string = (text) => text) =>
  change(
    'Name:\tpayments\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t42\nUid:\t1000\t1001\t1002\t1003\nGid:\t2000\t2001\t2002\t2003\nFDSize:\t64\nGroups:\t4 27 2001 \nVmPeak:\t1 kB\n',
  )

describe('/proc/<pid>/stat', () => {
  test.each(['a) R 1 (', ') Z 0 0 0 (', '((((', '))))', 'x) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 99 (', '', ' ', '\n'])(
    'A-18 a program called `%s` does not choose its own start time',
    (name) => expect(parseStat(stat(name))).toEqual({ state: 'S', startTime: '4711' }),
  )

  test('A-18 whatever the program is called, the start time is the 22nd field', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 15 }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (name, at) => {
        expect(parseStat(stat(name, String(at))).startTime).toBe(String(at))
      }),
    )
  })

  test.each(['', '42', '42 payments S 1', '42 (payments) S 1 2 3', stat('payments', '-5'), stat('payments', '1e9')])(
    'refuses `%s`',
    (text) => {
      expect(() => parseStat(text)).toThrow(expect.objectContaining({ reason: 'proc.malformed' }))
    },
  )

  test('reads its own', () => expect(parseStat(readFileSync('/proc/self/stat', 'latin1')).startTime).toMatch(/^\d+$/))
})

describe('/proc/<pid>/status', () => {
  test.each([
    ['without users', (text: string) => text.replace(/^Uid.*\n/m, '')],
    ['without supplementary groups line', (text: string) => text.replace(/^Groups.*\n/m, '')],
    ['with a user that is no number', (text: string) => text.replace('1001', 'root')],
    ['with a negative group', (text: string) => text.replace('2001', '-1')],
    ['with three users', (text: string) => text.replace('\t1003', '')],
    ['that is empty', () => ''],
  ])('refuses one %s', (_what, change) => {
    expect(() => parseStatus(status(change))).toThrow(expect.objectContaining({ reason: 'proc.malformed' }))
  })

  test('refuses more groups than Linux has', () => {
    const many = status((text) => text.replace('4 27 2001', Array.from({ length: 65_537 }, (_, n) => n).join(' ')))
    expect(() => parseStatus(many)).toThrow(expect.objectContaining({ reason: 'proc.too-many-groups' }))
  })

  test('a program cannot put a line of its own in front by its name', () => {
    // The kernel escapes line ends in the name, so `Uid:` at the start of a line is the kernel's own.
    expect(parseStatus(status((text) => text.replace('payments', '\\nUid:\\t0\\t0\\t0\\t0'))).uid).toBe(1001)
  })

  test('takes the effective user and group, and the supplementary groups', () => {
    expect(parseStatus(status())).toEqual({ uid: 1001, gid: 2001, supplementaryGids: [4, 27, 2001] })
  })
})

describe('account files', () => {
  test('refuses one that is too large', () => {
    expect(() => parseAccounts('x'.repeat(4 * 1024 * 1024 + 1))).toThrow(expect.objectContaining({ reason: 'accounts.too-large' }))
  })

  test('passes over lines that do not parse and keeps the first name of a number', () => {
    const text = [
      'root:x:0:0:root:/root:/bin/sh',
      'toor:x:0:0::/:',
      '',
      '#comment',
      'bad name:x:5:',
      'minus:x:-1:',
      'hex:x:0x10:',
      ':x:9:',
      'ok@corp:x:10:10::/:',
      'nl\u0000:x:11:',
    ].join('\n')
    expect([...parseAccounts(text)]).toEqual([
      [0, 'root'],
      [10, 'ok@corp'],
    ])
  })

  test('reads anything without throwing anything but a refusal', () => {
    fc.assert(fc.property(fc.string(), (text) => void parseAccounts(text)))
  })
})
