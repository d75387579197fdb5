import { describe, expect, test } from 'vitest'
import { seconds } from '../../src/kernel/duration.ts'
import { activated, type AttestedNode, banned, frozen, isRenewedTooOften, released, renewed, standingOf } from '../../src/registry/node.ts'
import { node } from '../store/sample.ts'

const shown = { serial: 'aa01', notAfter: 1000 }
const here = '192.0.2.1'
const use = (node: AttestedNode, serial: string, at = 0): AttestedNode => activated(node, { serial, address: here }, at)

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
    expect([gone.serial, gone.pending, gone.superseded]).toEqual(['', [], []])
    for (const serial of ['aa01', 'bb', '']) expect(standingOf(gone, { ...shown, serial }, 0)).toEqual({ accepted: false, why: 'banned' })
  })

  test('is refused with a certificate that is neither in use nor waiting', () => {
    expect(standingOf(node(), { ...shown, serial: 'ff' }, 0)).toEqual({ accepted: false, why: 'not-active' })
    expect(standingOf(node({ serial: '' }), { ...shown, serial: '' }, 0)).toEqual({ accepted: false, why: 'not-active' })
  })

  test('Q-5 is accepted with both after a renewal, and the first one is superseded when the new one is used', () => {
    const both = renewed(node(), { serial: 'bb', expiresAt: 5 })
    expect(standingOf(both, shown, 0)).toEqual({ accepted: true, as: 'in-use' })
    expect(standingOf(both, { ...shown, serial: 'bb' }, 0)).toEqual({ accepted: true, as: 'pending' })
    const after = use(both, 'bb')
    expect(standingOf(after, shown, 0)).toEqual({ accepted: true, as: 'superseded' })
    expect(standingOf(after, { ...shown, serial: 'bb' }, 0)).toEqual({ accepted: true, as: 'in-use' })
    expect([after.serial, after.expiresAt, after.pending]).toEqual(['bb', 5, []])
  })

  test('Q-5 is accepted with each of several after lost answers, all others are superseded by the one that is used first', () => {
    const all = ['b1', 'b2', 'b3'].reduce((before, serial) => renewed(before, { serial, expiresAt: 900 }), node())
    for (const serial of ['aa01', 'b1', 'b2', 'b3']) expect(standingOf(all, { ...shown, serial }, 0)).toMatchObject({ accepted: true })
    const after = use(all, 'b2')
    for (const serial of ['aa01', 'b1', 'b3']) expect(standingOf(after, { ...shown, serial }, 0)).toMatchObject({ as: 'superseded' })
    expect(standingOf(after, { ...shown, serial: 'b2' }, 0)).toEqual({ accepted: true, as: 'in-use' })
  })

  test('and loses answers without end makes no list that grows', () => {
    let lost = node()
    for (let time = 0; time < 50; time++) lost = renewed(lost, { serial: `b${time}`, expiresAt: 900 })
    expect(lost.pending.map(({ serial }) => serial)).toEqual(['b42', 'b43', 'b44', 'b45', 'b46', 'b47', 'b48', 'b49'])
  })
})

describe('C-29 a certificate that was superseded', () => {
  const at = seconds(100)
  const late = at + seconds(30) + 1
  const first = { serial: 'aa01', notAfter: seconds(900) }
  const after = use(renewed(node({ expiresAt: seconds(900) }), { serial: 'bb', expiresAt: seconds(950) }), 'bb', at)

  test('is accepted for half a minute after the next one came into use: that proves nothing', () => {
    for (const moment of [at, at + seconds(30)]) expect(standingOf(after, first, moment)).toEqual({ accepted: true, as: 'superseded' })
  })

  test('shows two parties when it is used later', () => {
    expect(standingOf(after, first, late)).toEqual({ accepted: false, why: 'cloned' })
  })

  test('still does so some renewals later, and when it came from an answer that was lost', () => {
    const twice = renewed(renewed(after, { serial: 'c1', expiresAt: seconds(990) }), { serial: 'c2', expiresAt: seconds(990) })
    const later = use(twice, 'c2', at + seconds(5))
    for (const serial of ['aa01', 'bb', 'c1']) {
      expect([serial, standingOf(later, { ...first, serial }, late + seconds(5))]).toEqual([serial, { accepted: false, why: 'cloned' }])
    }
  })

  test('shows nothing once it has expired, and is forgotten then', () => {
    expect(standingOf(after, first, seconds(900) + 1)).toEqual({ accepted: false, why: 'expired' })
    const next = use(renewed(after, { serial: 'cc', expiresAt: seconds(2000) }), 'cc', seconds(901))
    expect(next.superseded.map(({ serial }) => serial)).toEqual(['bb'])
  })

  test('cannot be pushed out by renewing again and again', () => {
    let node = after
    for (let time = 0; !isRenewedTooOften(node, at); time++) {
      if (time > 100) throw new Error('there is no end to it')
      node = use(renewed(node, { serial: `d${time}`, expiresAt: seconds(950) }), `d${time}`, at)
    }
    expect(standingOf(node, first, late)).toEqual({ accepted: false, why: 'cloned' })
    expect(isRenewedTooOften(node, seconds(951))).toBe(false)
  })

  const copied = frozen(after, { at, superseded: { serial: 'aa01', address: here }, successor: { serial: 'bb', address: here } })

  test('ends the one that replaced it as well, until the node is released; then neither is accepted, and neither shows anything', () => {
    expect(standingOf(copied, { ...first, serial: 'bb' }, late)).toEqual({ accepted: false, why: 'cloned' })
    for (const serial of ['aa01', 'bb']) {
      expect(standingOf(released(copied), { ...first, serial }, late)).toEqual({ accepted: false, why: 'not-active' })
    }
  })

  test('and a ban takes the place of the freeze', () => {
    expect(banned(copied).frozen).toBeUndefined()
    expect(standingOf(banned(copied), first, late)).toEqual({ accepted: false, why: 'banned' })
  })
})
