/**
 * The envelope around a key on disk (C-25): AES-256-GCM under a key that the operator keeps elsewhere.
 * The name of the key is authenticated, so that one file cannot take the place of another.
 */
import { createCipheriv, createDecipheriv, scrypt, type ScryptOptions } from 'node:crypto'
import { z } from 'zod'
import { base64, fromUtf8, utf8 } from '../../kernel/bytes.ts'
import type { Secrets, SecretReference } from '../../kernel/driver.ts'
import { Failure } from '../../kernel/failure.ts'
import type { Random } from '../../kernel/random.ts'

export type EnvelopeKey = { readonly passphrase: SecretReference } | { readonly key: SecretReference }

/** Seals and opens envelopes. The operator's secret is read anew for each, and kept nowhere. */
export interface Envelopes {
  seal(name: string, content: Uint8Array): Promise<Uint8Array>
  /** @throws Failure `keys.wrong-envelope-key`, `keys.unreadable` */
  open(name: string, envelope: Uint8Array): Promise<Uint8Array>
}

export function openEnvelopes(from: EnvelopeKey, { random, secrets }: { readonly random: Random; readonly secrets: Secrets }): Envelopes {
  const derivation: Derivation =
    'passphrase' in from ? { name: 'scrypt', N: cost, r: 8, p: 1, salt: base64(random.bytes(16)) } : { name: 'none' }
  return {
    async seal(name, content) {
      const nonce = random.bytes(12)
      const key = await derived(from, derivation, secrets)
      const cipher = createCipheriv('aes-256-gcm', key, nonce)
      key.fill(0)
      cipher.setAAD(bound(name, derivation))
      const sealed = Buffer.concat([cipher.update(content), cipher.final(), cipher.getAuthTag()])
      const written: Written = { vidimusKey: 1, cipher: 'AES-256-GCM', derivation, nonce: base64(nonce), sealed: base64(sealed) }
      return utf8(`${JSON.stringify(written, undefined, 2)}\n`)
    },
    async open(name, envelope) {
      const written = read(name, envelope)
      const sealed = Buffer.from(written.sealed, 'base64')
      const key = await derived(from, written.derivation, secrets)
      let plain: Buffer | undefined
      try {
        const decipher = createDecipheriv('aes-256-gcm', key, Buffer.from(written.nonce, 'base64'))
        decipher.setAAD(bound(name, written.derivation)).setAuthTag(sealed.subarray(-tagBytes))
        plain = decipher.update(sealed.subarray(0, -tagBytes))
        // Of this cipher nothing is left to come: what remains is whether the tag holds.
        decipher.final()
        return plain
      } catch (cause) {
        plain?.fill(0)
        throw refused(
          'wrong-envelope-key',
          `the key \`${name}\` cannot be decrypted: the passphrase or key is another, or the file was changed`,
          cause,
        )
      } finally {
        key.fill(0)
      }
    },
  }
}

/** Whether a file holds an envelope, of whatever version. */
export const isEnvelope = (content: Uint8Array): boolean => content[0] === 0x7b

async function derived(from: EnvelopeKey, derivation: Derivation, secrets: Secrets): Promise<Buffer> {
  if ('key' in from) return wholeKey((await secrets.read(from.key)).reveal())
  if (derivation.name === 'none')
    throw refused('wrong-envelope-key', 'a key on disk was encrypted with a key, and a passphrase is configured')
  const passphrase = (await secrets.read(from.passphrase)).reveal()
  if (passphrase.length < shortestPassphrase)
    throw refused('weak-passphrase', `the passphrase has ${passphrase.length} characters: expected at least ${shortestPassphrase}`)
  const { N, r, p, salt } = derivation
  return onAnotherThread(passphrase, Buffer.from(salt, 'base64'), { N, r, p, maxmem: 256 * N * r })
}

/** 32 bytes in base64 or hex, as `openssl rand -base64 32` makes them. */
function wholeKey(text: string): Buffer {
  const key = /^[0-9a-f]{64}$/i.test(text) ? Buffer.from(text, 'hex') : Buffer.from(text, 'base64')
  if (key.length === keyBytes) return key
  throw refused(
    'weak-envelope-key',
    'the key that keys on disk are encrypted with is not 32 bytes in base64 or hex: `openssl rand -base64 32` makes one',
  )
}

function onAnotherThread(passphrase: string, salt: Uint8Array, options: ScryptOptions): Promise<Buffer> {
  return new Promise((resolve, reject) =>
    scrypt(passphrase, salt, keyBytes, options, (error, key) => (error ? reject(error) : resolve(key))),
  )
}

/** What is authenticated beside the content. */
const bound = (name: string, derivation: Derivation): Uint8Array => utf8(JSON.stringify(['vidimus key', 1, name, derivation]))

function read(name: string, envelope: Uint8Array): Written {
  try {
    return writtenSchema.parse(JSON.parse(fromUtf8(envelope)))
  } catch (cause) {
    throw refused('unreadable', `the envelope of the key \`${name}\` is damaged, or of a newer version`, cause)
  }
}

function refused(what: string, text: string, cause?: unknown): Failure {
  return new Failure('failed_precondition', `keys.${what}`, { public: text, ...(cause === undefined ? {} : { cause }) })
}

const base64Bytes = (least: number, most: number) => z.base64().min(least).max(most)
/** Costs above ours are refused: whoever can write a file must not choose how much memory we take. */
const derivationSchema = z.discriminatedUnion('name', [
  z.strictObject({ name: z.literal('none') }),
  z.strictObject({
    name: z.literal('scrypt'),
    N: z.literal([2 ** 15, 2 ** 16, 2 ** 17]),
    r: z.literal(8),
    p: z.literal(1),
    salt: base64Bytes(24, 24),
  }),
])
type Derivation = z.infer<typeof derivationSchema>
const writtenSchema = z.strictObject({
  vidimusKey: z.literal(1),
  cipher: z.literal('AES-256-GCM'),
  derivation: derivationSchema,
  nonce: base64Bytes(16, 16),
  sealed: base64Bytes(24, 16_384),
})
type Written = z.infer<typeof writtenSchema>

/** RFC 7914; OWASP's first choice: 128 MiB, about a third of a second. */
const cost = 2 ** 17
const keyBytes = 32
const tagBytes = 16
const shortestPassphrase = 12
