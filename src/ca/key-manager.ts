/** Where the CA's keys live. */
import { sameBytes, utf8 } from '../kernel/bytes.ts'
import type { Driver } from '../kernel/driver.ts'
import { Failure } from '../kernel/failure.ts'
import { keyTypeOf, type KeyType } from '../x509/key-type.ts'
import { importPublicKey, signatureAlgorithmOf, verifySignature, type Signer } from '../x509/signature.ts'

/** A key that stays where it is: its public half, and signatures by it. There is no way to export it. */
export interface ManagedKey extends Signer {
  readonly id: string
}

/** PORT: makes and keeps the CA's keys. */
export interface KeyManager extends AsyncDisposable {
  /** Makes a key under `id`, replacing an earlier one of that name. @throws Failure `keys.bad-id` */
  create(id: string, type: KeyType, signal: AbortSignal): Promise<ManagedKey>
  /** The key of that name, or undefined: only if there is none, not if it cannot be read. */
  find(id: string, signal: AbortSignal): Promise<ManagedKey | undefined>
  /** Destroys the key of that name, if there is one. */
  remove(id: string, signal: AbortSignal): Promise<void>
  /** What the operator should know or change, in words. */
  complaints?(): readonly string[]
}

export type KeyManagerDriver<Config = never> = Driver<KeyManager, Config>
export const keyManager = <Config>(driver: KeyManagerDriver<Config>): KeyManagerDriver<Config> => driver

/**
 * A key manager whose keys are what they say: of the name and type that were asked for, and able to make a signature
 * that their public half accepts (C-20). A driver is believed no further than that.
 * @throws Failure `keys.bad-id`, `keys.wrong-id`, `keys.wrong-type`, `keys.not-its-key`
 */
export function checked(keys: KeyManager): KeyManager {
  return {
    async create(id, type, signal) {
      demandId(id)
      const key = await keys.create(id, type, signal)
      if (key.keyType !== type) throw refused('wrong-type', `it made a key of type \`${key.keyType}\`: expected \`${type}\``)
      return tried(key, id, signal)
    },
    async find(id, signal) {
      demandId(id)
      const key = await keys.find(id, signal)
      return key && tried(key, id, signal)
    },
    async remove(id, signal) {
      demandId(id)
      await keys.remove(id, signal)
    },
    [Symbol.asyncDispose]: () => keys[Symbol.asyncDispose](),
  }
}

/**
 * A key that a device or a service keeps: its signatures are handed on only if they hold (C-21), and no more than a thousand
 * are waited for at once, so that an outage fills no memory (C-23).
 * @throws Failure `keys.bad-signature`, `keys.busy`
 */
export function distrusted(key: ManagedKey): ManagedKey {
  const publicKey = importPublicKey(key.publicKey)
  const algorithm = signatureAlgorithmOf(key.keyType)
  let waiting = 0
  return {
    ...key,
    async sign(message, signal) {
      if (waiting >= maxWaiting)
        throw new Failure('resource_exhausted', 'keys.busy', { public: 'too many signatures are waited for: try again later' })
      waiting++
      try {
        const signature = await key.sign(message, signal)
        if (verifySignature(publicKey, algorithm, message, signature)) return signature
      } finally {
        waiting--
      }
      throw refused('bad-signature', `a signature by the key \`${key.id}\` does not hold`)
    },
  }
}

/** A key manager that is away: the current certificates are served on, and whoever wanted a signature is told to come again (C-23). */
export function outage(cause: unknown): Failure {
  return new Failure('unavailable', 'keys.unavailable', { public: 'the key manager cannot be reached: try again later', cause })
}

/** Names of keys become names of files and parts of paths, so they are made of little. @throws Failure `keys.bad-id` */
export function demandId(id: string): void {
  if (!idPattern.test(id))
    throw new Failure('invalid_argument', 'keys.bad-id', {
      public: `\`${id.slice(0, 80)}\` is not a name for a key: expected 1 to 64 of \`a-z\`, \`0-9\` and \`-\``,
    })
}

async function tried(key: ManagedKey, id: string, signal: AbortSignal): Promise<ManagedKey> {
  if (key.id !== id) throw refused('wrong-id', `it answered with the key \`${key.id}\`: expected \`${id}\``)
  const publicKey = importPublicKey(key.publicKey)
  if (keyTypeOf(publicKey) !== key.keyType) throw refused('wrong-type', 'the type of a key is not that of its public half')
  const message = utf8(`vidimus key check ${id}`)
  const signature = await key.sign(message, signal)
  if (!verifySignature(publicKey, signatureAlgorithmOf(key.keyType), message, signature)) {
    throw refused('not-its-key', 'the signature of a key does not fit its public half')
  }
  return key
}

/** Whether a key is the one that an authority was made with. */
export const isKeyOf = (key: ManagedKey, publicKey: Uint8Array): boolean => sameBytes(key.publicKey, publicKey)

function refused(what: string, problem: string): Failure {
  return new Failure('internal', `keys.${what}`, { public: `the key manager cannot be trusted: ${problem}` })
}

const maxWaiting = 1000
const idPattern = /^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$/
