import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { clientOf, type Client } from '../../src/rpc/client.ts'
import { Entry } from '../../src/rpc/gen/spire/api/server/entry/v1/entry_pb.ts'
import { AmendedEntries } from '../../src/rpc/gen/vidimus/api/entry/v1/entry_pb.ts'
import { toEntry } from '../../src/server-api/messages.ts'
import { openRig, type Rig } from '../server/rig.ts'
import { entry } from '../store/sample.ts'
import { channelAs, local } from './rig.ts'

let rig: Rig
let amended: Client<typeof AmendedEntries>
let spire: Client<typeof Entry>
beforeEach(async () => {
  rig = await openRig()
  amended = clientOf(AmendedEntries, channelAs(local, rig.server))
  spire = clientOf(Entry, channelAs(local, rig.server))
})
afterEach(() => rig[Symbol.asyncDispose]())

const web = toEntry(entry({ id: 'web' }))
const additions = { subject: { organizationalUnit: 'Storage' }, claims: '{"tier":"gold"}' }

describe('entries with additions', () => {
  test.for([
    ['without an entry', { additions }, 3, 'field `entry` is missing'],
    ['with an attribute that may not be chosen', { entry: web, additions: { subject: { title: 'Dr' } } }, 3, '`title`'],
    [
      'with an attribute that the server does not allow',
      { entry: web, additions: { subject: { country: 'DE' } } },
      9,
      'svid.additions.subject',
    ],
    ['with a reserved claim', { entry: web, additions: { claims: '{"sub":"x"}' } }, 3, '`sub` is reserved'],
    ['with claims that are no JSON', { entry: web, additions: { claims: 'tier=gold' } }, 3, 'not valid JSON'],
  ] as const)('%s are refused one by one, with the reason', async ([, message, code, text]) => {
    const { results } = await amended.batchCreateAmended({
      entries: [message, { entry: toEntry(entry({ id: 'other', selectors: ['x:1'] })) }],
    })
    expect(results).toMatchObject([{ status: { code, message: expect.stringContaining(text) as string } }, { status: { code: 0 } }])
    expect(await rig.store.entries.find('web')).toBeUndefined()
  })

  test('of more ids than a page has are not told', async () => {
    const ids = Array.from({ length: 501 }, (_, index) => `e${index}`)
    await expect(amended.listAdditions({ ids })).rejects.toMatchObject({ category: 'invalid_argument' })
  })

  test('are kept by a client that knows nothing of additions, whatever its mask says', async () => {
    await amended.batchCreateAmended({ entries: [{ entry: web, additions }] })
    await spire.batchUpdateEntry({ entries: [{ ...web, hint: 'a' }] })
    await spire.batchUpdateEntry({ entries: [{ ...web, hint: 'b' }], inputMask: { hint: true } })
    expect(await rig.store.entries.find('web')).toMatchObject({
      hint: 'b',
      revision: 2n,
      subject: { organizationalUnit: 'Storage' },
      claims: { tier: 'gold' },
    })
    expect((await amended.listAdditions({ ids: ['web', 'nowhere', 'web'] })).additions).toMatchObject({ web: additions })
  })

  test('lose what an update leaves out, and are then told of no more', async () => {
    await amended.batchCreateAmended({ entries: [{ entry: web, additions }] })
    const { results } = await amended.batchUpdateAmended({ entries: [{ entry: web, additions: { claims: '{"tier":"silver"}' } }] })
    expect(results).toMatchObject([
      { status: { code: 0 }, entry: { entry: { revisionNumber: 1n }, additions: { subject: {}, claims: '{"tier":"silver"}' } } },
    ])
    await amended.batchUpdateAmended({ entries: [{ entry: web }] })
    expect((await amended.listAdditions({ ids: ['web'] })).additions).toEqual({})
  })

  test('a similar entry that is there already stays as it is', async () => {
    await spire.batchCreateEntry({ entries: [web] })
    const { results } = await amended.batchCreateAmended({ entries: [{ entry: { ...web, id: 'two' }, additions }] })
    expect(results).toMatchObject([{ status: { code: 6 }, entry: { entry: { id: 'web' }, additions: { subject: {}, claims: '' } } }])
  })
})
