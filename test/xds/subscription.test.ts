import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { failedWith } from '../../src/kernel/failure.ts'
import type { Resources } from '../../src/xds/resources.ts'
import {
  newSubscription,
  receive,
  refresh,
  repeat,
  type Step,
  type Subscription,
  type SubscriptionRequest,
} from '../../src/xds/subscription.ts'

describe('refuses', () => {
  test('a request with more than 500 names', () => {
    expect(reasonOf(() => asking(names(501)))).toBe('xds.too-many-names')
    expect(asking(names(500)).understood).toBe('opened')
  })

  test('a name that is longer than any of ours', () => {
    expect(reasonOf(() => asking(['a'.repeat(2049)]))).toBe('xds.name-too-long')
    expect(asking(['a'.repeat(2048)]).understood).toBe('opened')
  })
})

describe('stays silent', () => {
  test('after an ACK, or every ACK would cause a response', () => {
    const first = asking(['a'])
    const acked = receive(first.subscription, { names: ['a'], nonce: 'n1' }, held, 'n2')
    expect(acked).toMatchObject({ understood: 'accepted' })
    expect(acked.answer).toBeUndefined()
  })

  test('after a NACK, until the content changes', () => {
    const first = asking(['a'])
    const nacked = receive(first.subscription, { names: ['a'], nonce: 'n1', rejection: 'bad key' }, held, 'n2')
    expect(nacked.understood).toBe('rejected')
    expect(nacked.answer).toBeUndefined()
    expect(refresh(nacked.subscription, held, 'n3').answer).toBeUndefined()
    expect(sentBy(refresh(nacked.subscription, changed('a'), 'n3'))).toEqual(['a'])
  })

  test('when an older response is acknowledged late', () => {
    const first = asking(['a'])
    const pushed = refresh(first.subscription, changed('a'), 'n2')
    const late = receive(pushed.subscription, { names: ['a'], nonce: 'n1' }, changed('a'), 'n3')
    expect(late.understood).toBe('stale')
    expect(late.answer).toBeUndefined()
    expect(receive(late.subscription, { names: ['a'], nonce: 'n2' }, changed('a'), 'n3').understood).toBe('accepted')
  })

  test('when something changes that the stream does not subscribe to', () => {
    expect(refresh(asking(['a']).subscription, changed('b'), 'n2').answer).toBeUndefined()
  })

  test('about a name that is not there', () => {
    const step = asking(['nowhere'])
    expect(step.answer).toBeUndefined()
    expect(step.missing).toEqual(['nowhere'])
  })

  test('after all names were taken back, which unsubscribes from everything', () => {
    const emptied = receive(asking(['a']).subscription, { names: [], nonce: 'n1' }, held, 'n2')
    expect(emptied.answer).toBeUndefined()
    expect(refresh(emptied.subscription, changed('a'), 'n3').answer).toBeUndefined()
    expect(repeat(emptied.subscription, held, 'n3').answer).toBeUndefined()
  })
})

describe('answers', () => {
  test('the right names of a request, and leaves out the others', () => {
    const step = asking(['b', 'nowhere', 'a', 'a'])
    expect(sentBy(step)).toEqual(['a', 'b'])
    expect(step.missing).toEqual(['nowhere'])
  })

  test('a remembered name as soon as it appears', () => {
    const step = asking(['later'])
    const there = new Map([...held, ['later', resource('1')]])
    expect(sentBy(refresh(step.subscription, there, 'n2'))).toEqual(['later'])
  })

  test('a new name, with content that did not change, and only that one', () => {
    const first = asking(['a'])
    expect(sentBy(receive(first.subscription, { names: ['a', 'b'], nonce: 'n1' }, held, 'n2'))).toEqual(['b'])
  })

  test('a new name in a request with a stale nonce, which may be the only sign of it', () => {
    const pushed = refresh(asking(['a']).subscription, changed('a'), 'n2')
    const step = receive(pushed.subscription, { names: ['a', 'b'], nonce: 'n1' }, changed('a'), 'n3')
    expect(step.understood).toBe('changed')
    expect(sentBy(step)).toEqual(['b'])
  })

  test('a name that was dropped and asked for again', () => {
    const dropped = receive(asking(['a', 'b']).subscription, { names: ['b'], nonce: 'n1' }, held, 'n2')
    expect(dropped.answer).toBeUndefined()
    expect(sentBy(receive(dropped.subscription, { names: ['a', 'b'], nonce: 'n1' }, held, 'n2'))).toEqual(['a'])
  })

  test('an identical request again, because a new watcher inside the proxy is waiting', () => {
    const acked = receive(asking(['a']).subscription, { names: ['a'], nonce: 'n1' }, held, 'n2')
    const again = receive(acked.subscription, { names: ['a'], nonce: 'n1' }, held, 'n2')
    expect(again.understood).toBe('repeated')
    expect(again.answer).toMatchObject({ nonce: 'n2' })
    expect(sentBy(again)).toEqual(['a'])
  })

  test('a reconnecting proxy, whatever version it says it has', () => {
    expect(sentBy(asking(['a']))).toEqual(['a'])
  })

  test('everything to a client that never named anything, and to one that asks for `*`', () => {
    expect(sentBy(asking([]))).toEqual(['a', 'b'])
    expect(sentBy(asking(['*']))).toEqual(['a', 'b'])
  })

  test('only what changed', () => {
    expect(sentBy(refresh(asking(['a', 'b']).subscription, changed('b'), 'n2'))).toEqual(['b'])
  })
})

describe('versions', () => {
  test('depend on the subscribed content alone, so they are equal on every stream', () => {
    const one = asking(['a', 'b']).answer!.version
    const other = receive(asking(['b']).subscription, { names: ['a', 'b'], nonce: 'n1' }, held, 'x').answer!.version
    expect(other).toBe(one)
    expect(refresh(asking(['a', 'b']).subscription, changed('a'), 'n2').answer!.version).not.toBe(one)
  })
})

test('what was no longer asked for while it was gone is sent when it is back, also if it is as it was', () => {
  const there = new Map([['a', resource('1')]])
  const asking = (before: Subscription, ...names: string[]) => receive(before, { names, nonce: before.nonce }, there, 'n').subscription
  const first = asking(newSubscription, 'a')
  there.delete('a')
  const again = asking(asking(first), 'a')
  there.set('a', resource('1'))
  expect(refresh(again, there, 'n9').answer?.resources.map(({ name }) => name)).toEqual(['a'])
})

test('whatever a proxy sends, it converges: what it subscribes to and what there is was sent, and nothing it did not ask for', () => {
  const name = fc.constantFrom('a', 'b', 'c', 'd')
  const event = fc.oneof(
    fc.record({ kind: fc.constant('ask' as const), names: fc.uniqueArray(name), stale: fc.boolean(), rejected: fc.boolean() }),
    fc.record({ kind: fc.constant('change' as const), name, version: fc.constantFrom('1', '2', '3'), gone: fc.boolean() }),
  )
  fc.assert(
    fc.property(fc.array(event, { maxLength: 30 }), (events) => {
      let subscription: Subscription = newSubscription
      const there = new Map(held)
      const sent = new Map<string, string>()
      for (const [index, one] of events.entries()) {
        let step: Pick<Step, 'subscription' | 'answer'>
        if (one.kind === 'ask') {
          const request: SubscriptionRequest = {
            names: one.names,
            nonce: one.stale ? 'old' : subscription.nonce,
            ...(one.rejected && { rejection: 'no' }),
          }
          step = receive(subscription, request, there, `n${index}`)
          for (const known of [...sent.keys()]) if (!step.subscription.wildcard && !step.subscription.names.has(known)) sent.delete(known)
        } else {
          if (one.gone) there.delete(one.name)
          else there.set(one.name, resource(one.version))
          step = subscription.open ? refresh(subscription, there, `n${index}`) : { subscription }
        }
        subscription = step.subscription
        for (const item of step.answer?.resources ?? []) {
          expect(subscription.wildcard || subscription.names.has(item.name)).toBe(true)
          sent.set(item.name, Buffer.from(item.value).toString())
        }
        if (!subscription.open) continue
        for (const [known, content] of there) {
          if (subscription.wildcard || subscription.names.has(known)) expect(sent.get(known)).toBe(Buffer.from(content.value).toString())
        }
      }
    }),
  )
})

const resource = (version: string) => ({ version, value: Buffer.from(version) })
const held: Resources = new Map([
  ['a', resource('1')],
  ['b', resource('1')],
])
const changed = (name: string): Resources => new Map([...held, [name, resource('2')]])
const names = (count: number): string[] => Array.from({ length: count }, (_, index) => `name-${index}`)
const asking = (wanted: readonly string[]): Step => receive(newSubscription, { names: wanted, nonce: '' }, held, 'n1')
const sentBy = (step: Pick<Step, 'answer'>): string[] | undefined => step.answer?.resources.map(({ name }) => name)

function reasonOf(act: () => unknown): string | undefined {
  try {
    act()
  } catch (error) {
    return failedWith(error, (error as { reason: string }).reason) ? error.reason : String(error)
  }
  return undefined
}
