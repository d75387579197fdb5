import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { CompactSign } from 'jose'
import { describe, expect, test } from 'vitest'
import type { PolicyDocument } from '../../src/policy/policy-set.ts'
import { signPolicySet, verifyPolicySet, type SignableSet } from '../../src/policy/signed-set.ts'

const web: PolicyDocument = { name: 'web.yaml', text: 'web' }
const db: PolicyDocument = { name: 'db.yaml', text: 'db' }
const set: SignableSet = { documents: [web, db], options: { mode: 'strict' } }
const pair = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })
const signer = pair()
const stranger = pair()
const until = 1_000_000
const sign = (what: SignableSet = set, serial = 7, key: KeyObject = signer.privateKey) =>
  signPolicySet(what, { serial, expires: until }, key)
const verify = async (what: SignableSet & { signature?: string }, { after = 0, at = 0, keys = [signer.publicKey] } = {}) =>
  verifyPolicySet(what, { keys, after, at })

describe('a set of policies that must be signed is refused', () => {
  test.each<[string, () => Promise<SignableSet & { signature?: string }>, string]>([
    ['without a signature', async () => set, 'policy.unsigned'],
    ['with a signature that is none', async () => ({ ...set, signature: 'a.b.c' }), 'policy.signature-invalid'],
    ['with a signature of a megabyte', async () => ({ ...set, signature: 'a'.repeat(1024 * 1024 + 1) }), 'policy.signature-invalid'],
    ['signed by a stranger', async () => ({ ...set, signature: await sign(set, 7, stranger.privateKey) }), 'policy.signature-invalid'],
    [
      'with a document that changed',
      async () => ({ ...set, documents: [web, { ...db, text: 'DB' }], signature: await sign() }),
      'policy.signature-mismatch',
    ],
    [
      'with a document too many',
      async () => ({ ...set, documents: [web, db, { name: 'c', text: '' }], signature: await sign() }),
      'policy.signature-mismatch',
    ],
    ['with a document too few', async () => ({ ...set, documents: [web], signature: await sign() }), 'policy.signature-mismatch'],
    [
      'in another mode',
      async () => ({ ...set, options: { mode: 'istio' as const }, signature: await sign() }),
      'policy.signature-mismatch',
    ],
    [
      'with a signature of something else',
      async () => ({ ...set, signature: await signedText('{"format":"vidimus-policy-set/1"}') }),
      'policy.signature-invalid',
    ],
    ['with a token of another type', async () => ({ ...set, signature: await signedText('{}', 'JWT') }), 'policy.signature-invalid'],
  ])('%s', async (_, make, reason) => {
    await expect(verify(await make())).rejects.toMatchObject({ reason })
  })

  test('with the serial of one that was accepted before, or an older one', async () => {
    const signed = { ...set, signature: await sign() }
    await expect(verify(signed, { after: 7 })).rejects.toMatchObject({ reason: 'policy.older-serial' })
    await expect(verify(signed, { after: 8 })).rejects.toMatchObject({ reason: 'policy.older-serial' })
    expect(await verify(signed, { after: 6 })).toEqual({ serial: 7, expires: until })
  })

  test('from the moment on that its signature expires', async () => {
    const signed = { ...set, signature: await sign() }
    await expect(verify(signed, { at: until })).rejects.toMatchObject({ reason: 'policy.signature-expired' })
    expect(await verify(signed, { at: until - 1 })).toMatchObject({ serial: 7 })
  })

  test('R-17 with an algorithm that is not that of the key', async () => {
    const token = await new CompactSign(Buffer.from('{}'))
      .setProtectedHeader({ alg: 'HS256', typ: 'vidimus-policy-set' })
      .sign(signer.publicKey.export({ format: 'der', type: 'spki' }))
    await expect(verify({ ...set, signature: token })).rejects.toMatchObject({ reason: 'policy.signature-invalid' })
  })
})

describe('a set of policies is accepted', () => {
  test('in any order of its documents, by any of the keys', async () => {
    const signed = { documents: [db, web], options: set.options, signature: await sign() }
    expect(await verify(signed, { keys: [stranger.publicKey, signer.publicKey] })).toEqual({ serial: 7, expires: until })
  })

  test.each<[string, () => { privateKey: KeyObject; publicKey: KeyObject }]>([
    ['P-384', () => generateKeyPairSync('ec', { namedCurve: 'P-384' })],
    ['Ed25519', () => generateKeyPairSync('ed25519')],
    ['RSA', () => generateKeyPairSync('rsa', { modulusLength: 2048 })],
  ])('with a key on %s', async (_, make) => {
    const { privateKey, publicKey } = make()
    expect(await verify({ ...set, signature: await sign(set, 1, privateKey) }, { keys: [publicKey] })).toMatchObject({ serial: 1 })
  })

  test('and a kind of key that nobody uses for this is refused when signing', async () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'secp256k1' })
    await expect(sign(set, 1, privateKey)).rejects.toMatchObject({ reason: 'policy.signing-key' })
  })
})

const signedText = (text: string, typ = 'vidimus-policy-set') =>
  new CompactSign(Buffer.from(text)).setProtectedHeader({ alg: 'ES256', typ }).sign(signer.privateKey)
