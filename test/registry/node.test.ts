import { describe, expect, test } from 'vitest'
import { activated, banned, renewed, standingOf } from '../../src/registry/node.ts'
import { node } from '../store/sample.ts'

const shown = { serial: 'aa01', notAfter: 1000 }

describe('an agent that shows its certificate', () => {
  test('is refused once the certificate has expired', () => {
    expect(standingOf(node(), shown, 1001)).toEqual({ accepted: false, why: 'expired' })
    expect(standingOf(node(), shown, 1000)).toMatchObject({ accepted: true })
  })

  test('is refused when its node is not known', () => {
    expect(standingOf(undefined, shown, 0)).toEqual({ accepted: false, why: 'not-attested' })
  })

  test('is refused when its node is banned, whatever it shows', () => {
    const gone = banned(renewed(node(), { serial: 'bb', expiresAt: 5 }))
    expect([gone.serial, gone.pending]).toEqual(['', undefined])
    for (const serial of ['aa01', 'bb', '']) expect(standingOf(gone, { ...shown, serial }, 0)).toEqual({ accepted: false, why: 'banned' })
  })

  test('is refused with a certificate that is neither in use nor waiting', () => {
    expect(standingOf(node(), { ...shown, serial: 'ff' }, 0)).toEqual({ accepted: false, why: 'not-active' })
    expect(standingOf(node({ serial: '' }), { ...shown, serial: '' }, 0)).toEqual({ accepted: false, why: 'not-active' })
  })

  test('Q-5 is accepted with both after a renewal, and with the new one alone after its first use', () => {
    const both = renewed(node(), { serial: 'bb', expiresAt: 5 })
    expect(standingOf(both, shown, 0)).toEqual({ accepted: true, firstUse: false })
    expect(standingOf(both, { ...shown, serial: 'bb' }, 0)).toEqual({ accepted: true, firstUse: true })
    const after = activated(both)
    expect(standingOf(after, shown, 0)).toEqual({ accepted: false, why: 'not-active' })
    expect(standingOf(after, { ...shown, serial: 'bb' }, 0)).toEqual({ accepted: true, firstUse: false })
    expect([after.serial, after.expiresAt, after.pending]).toEqual(['bb', 5, undefined])
  })
})
