import { describe, expect, test } from 'vitest'
import { jwtValidation, type ValidateJwt } from '../../src/agent/jwt-validation.ts'
import { minutes, seconds } from '../../src/kernel/duration.ts'
import type { TrustBundle } from '../../src/spiffe/bundle.ts'
import { parseTrustDomain, type TrustDomain } from '../../src/spiffe/trust-domain.ts'
import { FakeClock } from '../fakes/clock.ts'
import { FakeUpstreamServer } from '../fakes/upstream-server.ts'
import { never } from './rig.ts'

interface Scene {
  readonly clock: FakeClock
  readonly server: FakeUpstreamServer
  readonly token: string
  /** Validates under the server's bundle of this moment; the same object while nothing changed. */
  readonly validate: (audience: string, token: string) => ReturnType<ValidateJwt>
  readonly change: () => void
}

/** A token for `db`, that was validated once. */
async function validatedOnce(): Promise<Scene> {
  const clock = new FakeClock()
  const server = await FakeUpstreamServer.start({ clock })
  const { token } = await server.signJwt(server.add('/web', ['a:b']).id, ['db'], never)
  const validate = jwtValidation(clock)
  let bundle = server.currentBundle
  const scene: Scene = {
    clock,
    server,
    token,
    validate: (audience, one) => validate({ bundle, federated: new Map() }, audience, one),
    change: () => void (bundle = server.currentBundle),
  }
  await scene.validate('db', token)
  return scene
}

describe('a token that was validated before', () => {
  test('J-12 does not hold for another audience', async () => {
    const { validate, token } = await validatedOnce()
    await expect(validate('mail', token)).rejects.toMatchObject({ reason: 'jwt-svid.wrong-audience' })
  })

  test('J-11 does not hold once it has expired', async () => {
    const { clock, validate, token } = await validatedOnce()
    const { expiresAt } = await validate('db', token)
    await clock.advance(expiresAt - clock.now() - 1)
    expect((await validate('db', token)).spiffeId).toBe('spiffe://example.org/web')
    await clock.advance(1)
    await expect(validate('db', token)).rejects.toMatchObject({ reason: 'jwt-svid.expired' })
  })

  test('does not hold once its key is gone from the bundle', async () => {
    const scene = await validatedOnce()
    const other = await FakeUpstreamServer.start({ clock: scene.clock })
    const replaced: TrustBundle = { ...scene.server.currentBundle, jwtAuthorities: other.currentBundle.jwtAuthorities }
    const validate = jwtValidation(scene.clock)
    await validate({ bundle: scene.server.currentBundle, federated: new Map() }, 'db', scene.token)
    await expect(validate({ bundle: replaced, federated: new Map() }, 'db', scene.token)).rejects.toMatchObject({
      category: 'unauthenticated',
    })
  })

  test('API-22 does not hold for a workload that does not trust its trust domain', async () => {
    const clock = new FakeClock()
    const foreign = parseTrustDomain('other.example')
    const elsewhere = await FakeUpstreamServer.start({ clock, trustDomain: foreign })
    const { token } = await elsewhere.signJwt(elsewhere.add('/client', ['a:b']).id, ['db'], never)
    const own = (await FakeUpstreamServer.start({ clock })).currentBundle
    const validate = jwtValidation(clock)
    const federated = new Map<TrustDomain, TrustBundle>([[foreign, elsewhere.currentBundle]])
    expect((await validate({ bundle: own, federated }, 'db', token)).spiffeId).toBe('spiffe://other.example/client')
    await expect(validate({ bundle: own, federated: new Map() }, 'db', token)).rejects.toMatchObject({
      reason: 'jwt-svid.unknown-trust-domain',
    })
  })

  test('is verified anew when the bundle was replaced', async () => {
    const { clock, server, validate, token, change } = await validatedOnce()
    await clock.advance(seconds(30))
    const first = await validate('db', token)
    server.rotateJwtKey()
    change()
    const second = await validate('db', token)
    expect(second).not.toBe(first)
    expect(second).toEqual(first)
  })

  test('is verified anew after the clock was set back: it may not be valid yet', async () => {
    const clock = new FakeClock()
    const server = await FakeUpstreamServer.start({ clock })
    const { token } = await server.signJwt(server.add('/web', ['a:b']).id, ['db'], never)
    let now = clock.now() + 1
    const validate = jwtValidation({ now: () => now })
    const held = { bundle: server.currentBundle, federated: new Map<TrustDomain, TrustBundle>() }
    const first = await validate(held, 'db', token)
    expect(await validate(held, 'db', token)).toBe(first)
    now--
    expect(await validate(held, 'db', token)).not.toBe(first)
  })

  test('is answered with what was found then', async () => {
    const { clock, validate, token } = await validatedOnce()
    const first = await validate('db', token)
    await clock.advance(minutes(1))
    expect(await validate('db', token)).toBe(first)
  })

  test('is forgotten after a thousand others', async () => {
    const { server, validate, token } = await validatedOnce()
    const first = await validate('db', token)
    const entry = server.add('/many', ['a:b'])
    for (let count = 0; count < 1000; count++) await validate('db', (await server.signJwt(entry.id, ['db', `${count}`], never)).token)
    const again = await validate('db', token)
    expect(again).not.toBe(first)
    expect(again).toEqual(first)
  })
})
