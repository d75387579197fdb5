import { createHash } from 'node:crypto'
import { z } from 'zod'
import { deadline } from '../../kernel/clock.ts'
import { secretReference, type SecretReference, type World } from '../../kernel/driver.ts'
import { seconds } from '../../kernel/duration.ts'
import { Failure, failedWith, type Category } from '../../kernel/failure.ts'
import { openThreads, type Threads } from '../../kernel/threads.ts'
import { keyTypes, type KeyType } from '../../x509/key-type.ts'
import { demandId, distrusted, keyManager, outage, type KeyManager, type ManagedKey } from '../key-manager.ts'
import type { Pkcs11Answer, Pkcs11Deed, Pkcs11Question } from './pkcs11-thread.ts'

/** Keeps keys on a PKCS #11 token: a hardware security module, a smart card, SoftHSM. They are made there and cannot leave. */
export const pkcs11 = keyManager({
  kind: 'pkcs11',
  config: z.strictObject({
    /** The module of the device's vendor: a shared library. */
    module: z.string().startsWith('/', 'expected the whole path of a shared library'),
    /** The label of the token. */
    token: z.string().min(1).max(32),
    /** Of the token's user. Read anew at each login. */
    pin: secretReference,
    /** What the labels of our keys begin with. */
    prefix: z
      .string()
      .regex(/^[a-z0-9-]{1,32}$/, 'expected 1 to 32 of `a-z`, `0-9` and `-`')
      .default('vidimus'),
  }),
  example: { module: '/usr/lib/softhsm/libsofthsm2.so', token: 'vidimus', pin: { file: '/etc/vidimus/token-pin' } },

  async open(settings, world) {
    // One thread: a token has one login, and its calls would hold up whoever makes them.
    const threads = await openThreads<Pkcs11Question, Pkcs11Answer>(threadModule, { most: 1, patience })
    const device = new Device(threads, settings, world)
    try {
      await device.demandThere()
      return device
    } catch (error) {
      await device[Symbol.asyncDispose]()
      throw error
    }
  },
})

interface Settings {
  readonly module: string
  readonly token: string
  readonly pin: SecretReference
  readonly prefix: string
}

class Device implements KeyManager {
  readonly #threads: Threads<Pkcs11Question, Pkcs11Answer>
  readonly #settings: Settings
  readonly #world: World
  /** SHA-256 of the PIN that the token refused: one that is tried too often is locked. */
  #refusedPin: string | undefined
  #usedPin: string | undefined
  #problem: string | undefined

  constructor(threads: Threads<Pkcs11Question, Pkcs11Answer>, settings: Settings, world: World) {
    this.#threads = threads
    this.#settings = settings
    this.#world = world
  }

  /** A wrong module, token or PIN is told at the start. */
  async demandThere(): Promise<void> {
    await this.#ask({ do: 'find', label: `${this.#settings.prefix}-start` })
  }

  async create(id: string, keyType: KeyType, signal: AbortSignal): Promise<ManagedKey> {
    const made = await this.#ask({ do: 'create', label: this.#labelOf(id), keyType }, signal)
    return this.#keyOf(id, made)!
  }

  async find(id: string, signal: AbortSignal): Promise<ManagedKey | undefined> {
    return this.#keyOf(id, await this.#ask({ do: 'find', label: this.#labelOf(id) }, signal))
  }

  async remove(id: string, signal: AbortSignal): Promise<void> {
    await this.#ask({ do: 'remove', label: this.#labelOf(id) }, signal)
  }

  complaints(): readonly string[] {
    return this.#problem === undefined ? [] : [`the token \`${this.#settings.token}\` cannot be used: ${this.#problem}`]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { module, token } = this.#settings
    await this.#threads.ask({ module, token, deed: { do: 'close' } }).catch(() => {})
    await this.#threads[Symbol.asyncDispose]()
  }

  #keyOf(id: string, found: Pkcs11Answer): ManagedKey | undefined {
    if (!found) return undefined
    if (!('spki' in found)) throw new Error('bug: the thread answered another question')
    const { keyType } = found
    const { hash } = keyTypes[keyType]
    return distrusted({
      id,
      keyType,
      publicKey: new Uint8Array(Buffer.from(found.spki, 'latin1')),
      sign: async (message, signal) => {
        const digest = createHash(hash).update(message).digest('latin1')
        const signed = await this.#ask({ do: 'sign', label: this.#labelOf(id), keyType, digest }, signal)
        if (!signed || !('signature' in signed)) throw new Error('bug: the thread answered another question')
        return Buffer.from(signed.signature, 'latin1')
      },
    })
  }

  /** Once more with a login where the session is gone: the token was taken out, or this is the first time. */
  async #ask(deed: Pkcs11Deed, signal?: AbortSignal): Promise<Pkcs11Answer> {
    const { module, token } = this.#settings
    try {
      const answered = this.#threads.ask({ module, token, deed }).catch(async (error: unknown) => {
        if (!failedWith(error, 'keys.no-session')) throw error
        return this.#threads.ask({ module, token, deed, pin: await this.#readPin() })
      })
      const answer = await within(answered, signal)
      this.#problem = undefined
      return answer
    } catch (error) {
      signal?.throwIfAborted()
      throw this.#explained(Failure.from(error))
    }
  }

  async #readPin(): Promise<string> {
    const pin = (await this.#world.secrets.read(this.#settings.pin)).reveal()
    this.#usedPin = digestOf(pin)
    if (this.#usedPin !== this.#refusedPin) return pin
    throw new Failure('failed_precondition', 'keys.pin-incorrect', {
      public: 'the PIN is the one that the token refused, and is not tried again: a few more would lock the token',
    })
  }

  #explained(failure: Failure): Failure {
    const { log } = this.#world
    if (failedWith(failure, 'keys.pin-incorrect')) this.#refusedPin = this.#usedPin
    if (this.#problem !== failure.message) log.error('the token refused', { reason: failure.reason, error: failure.message })
    this.#problem = failure.message
    return away.has(failure.category) || failure.reason.startsWith('threads.') ? outage(failure) : failure
  }

  #labelOf(id: string): string {
    demandId(id)
    return `${this.#settings.prefix}-${id}`
  }
}

/** A call into a device cannot be interrupted; whoever waits for it can stop waiting (V-13). */
async function within<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  const late = deadline(2 * patience, signal)
  const { promise, reject } = Promise.withResolvers<never>()
  const giveUp = (): void => reject(late.reason)
  late.addEventListener('abort', giveUp, { once: true })
  try {
    return await Promise.race([work, promise])
  } finally {
    late.removeEventListener('abort', giveUp)
  }
}

const away: ReadonlySet<Category> = new Set<Category>(['unavailable', 'deadline_exceeded'])
const digestOf = (pin: string): string => createHash('sha256').update(pin).digest('hex')
const threadModule = import.meta.url.endsWith('.ts')
  ? new URL('./pkcs11-thread.ts', import.meta.url)
  : new URL('./pkcs11-thread.js', import.meta.url)
/** A device that takes longer is given up, and the next call starts anew. */
const patience = seconds(30)
