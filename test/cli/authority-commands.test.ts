import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openCliRig, type CliRig, type Outcome } from './rig.ts'

let rig: CliRig
beforeEach(async () => {
  rig = await openCliRig()
})
afterEach(() => rig[Symbol.asyncDispose]())

interface Row {
  readonly kind: string
  readonly id: string
  readonly state: string
}
const rows = async (): Promise<readonly Row[]> =>
  ((await rig.vidimus('authority', 'show', '--output', 'json')).json() as { authorities: Row[] }).authorities
const textOf = ({ thrown }: Outcome): string => (thrown instanceof Error ? thrown.message : '')

describe('authorities', () => {
  test('of a kind that is off, unknown or not named are refused with what to do', async () => {
    expect(await rig.vidimus('authority', 'prepare')).toMatchObject({ code: 2 })
    expect(await rig.vidimus('authority', 'prepare', '--kind', 'ssh')).toMatchObject({ code: 2 })
    const off = await rig.vidimus('authority', 'prepare', '--kind', 'wit')
    expect([off.code, textOf(off)]).toEqual([1, expect.stringContaining('experimental.witSvid')])
    expect((await rig.vidimus('authority', 'show', '--kind', 'wit')).code).toBe(1)
  })

  test('that are active are neither tainted nor revoked: the refusal names the next step', async () => {
    const [active] = await rows()
    const refused = await rig.vidimus('authority', 'taint', '--kind', 'x509', '--id', active!.id)
    expect([refused.code, textOf(refused)]).toEqual([1, expect.stringContaining('prepare and activate another first')])
    const root = await rig.vidimus('authority', 'upstream', 'taint', '--id', active!.id)
    expect([root.code, textOf(root)]).toEqual([1, expect.stringContaining('taint and revoke the authority itself')])
    const rootToo = await rig.vidimus('authority', 'upstream', 'revoke', '--id', active!.id)
    expect(rootToo.code).toBe(1)
  })

  test.each(['x509', 'jwt'])('of kind %s are rotated by four commands, each of which says the next', async (kind) => {
    const states = async () => (await rows()).filter((row) => row.kind === kind).map(({ state }) => state)
    const [first] = (await rows()).filter((row) => row.kind === kind)
    const prepared = await rig.vidimus('authority', 'prepare', '--kind', kind)
    const next = /run `vidimus (authority activate --kind \w+ --id (\S+))`/.exec(prepared.out)
    expect(prepared.out).toContain('everybody has heard of it in 5m')
    expect(await states()).toEqual(['active', 'prepared'])
    const activated = await rig.vidimus(...next![1]!.split(' '))
    expect(activated.out).toContain(`vidimus authority taint --kind ${kind} --id ${first!.id}`)
    expect(await states()).toEqual(['active', 'old'])
    const tainted = await rig.vidimus('authority', 'taint', '--kind', kind, '--id', first!.id)
    expect(tainted.out).toContain(`vidimus authority revoke --kind ${kind} --id ${first!.id}`)
    expect(await states()).toEqual(['active', 'tainted'])
    const revoked = await rig.vidimus('authority', 'revoke', '--kind', kind, '--id', first!.id, '--output', 'json')
    expect(revoked.json()).toMatchObject({ kind, id: first!.id, revoked: true })
    expect(await states()).toEqual(['active'])
  })
})
