import { createHash, createPublicKey } from 'node:crypto'
import { z } from 'zod'
import { Failure, failedWith } from '../../kernel/failure.ts'
import { keyTypes, type KeyType } from '../../x509/key-type.ts'
import { demandId, distrusted, keyManager, outage, type KeyManager, type ManagedKey } from '../key-manager.ts'
import { sessionRights, transitRights } from '../vault/rights.ts'
import { openVaultSession, type VaultSession } from '../vault/session.ts'
import { vaultPath, vaultSegment, vaultSettings, type VaultTransitSettings } from '../vault/settings.ts'
import { VaultWatch } from '../vault/watch.ts'
import { passes, type VaultAnswer, type VaultCall } from '../vault/wire.ts'

/** Keeps keys in a Transit mount of HashiCorp Vault or OpenBao: they never leave it, and it signs for us (V-17). */
export const vaultTransit = keyManager({
  kind: 'vault-transit',
  config: z.strictObject({
    ...vaultSettings,
    /** Path of the Transit mount. */
    mount: vaultPath.default('transit'),
    /** What the names of our keys begin with: `vidimus-x509-…`. A policy needs no more than these. */
    prefix: vaultSegment.default('vidimus'),
  }),
  example: {
    address: 'https://vault.example.test:8200',
    mount: 'transit',
    auth: { method: 'kubernetes', role: 'vidimus' },
  },

  async open(settings, world) {
    const session = openVaultSession(settings, world, 'transit')
    const watch = new VaultWatch(world)
    watch.demandRights(session, [...transitRights(settings), ...sessionRights])
    const transit = new Transit(session, settings)
    return {
      create: (id, type, signal) => transit.create(id, type, signal),
      find: (id, signal) => transit.find(id, signal),
      remove: (id, signal) => transit.remove(id, signal),
      complaints: () => [...session.complaints(), ...watch.complaints()],
      async [Symbol.asyncDispose]() {
        await watch[Symbol.asyncDispose]()
        await session[Symbol.asyncDispose]()
      },
    }
  },
})

class Transit implements Pick<KeyManager, 'create' | 'find' | 'remove'> {
  readonly #session: VaultSession
  readonly #mount: readonly string[]
  readonly #prefix: string

  constructor(session: VaultSession, { mount, prefix }: VaultTransitSettings) {
    this.#session = session
    this.#mount = mount.split('/')
    this.#prefix = prefix
  }

  async create(id: string, type: KeyType, signal: AbortSignal): Promise<ManagedKey> {
    const path = this.#pathOf(id)
    // Of a name that exists, the vault would keep the old key and say nothing.
    await this.remove(id, signal)
    const body = { type: typeNames[type], exportable: false, allow_plaintext_backup: false }
    await this.#call({ method: 'POST', path, body }, signal)
    const key = await this.find(id, signal)
    if (key) return key
    throw new Failure('unavailable', 'keys.unavailable', {
      public: `the vault made the key \`${id}\` and does not have it: try again later`,
    })
  }

  async find(id: string, signal: AbortSignal): Promise<ManagedKey | undefined> {
    const path = this.#pathOf(id)
    const answer = await this.#call({ method: 'GET', path }, signal).catch(ifMissing)
    if (!answer) return undefined
    const read = keyAnswer.safeParse(answer.body)
    if (!read.success) throw refused('malformed-answer', `the vault answered with something else than the key \`${id}\``, read.error)
    const { type, exportable, keys } = read.data.data
    const keyType = keyTypeNames.get(type)
    if (!keyType) throw refused('wrong-type', `the key \`${id}\` in the vault has the type \`${type.slice(0, 40)}\`, which is none of ours`)
    if (exportable) throw refused('exportable', `the key \`${id}\` in the vault can be exported: it is not used`)
    const own = keys[ownVersion]
    if (!own)
      throw refused(
        'version-gone',
        `version ${ownVersion} of the key \`${id}\` was archived in the vault: lower its \`min_decryption_version\``,
      )
    return distrusted({
      id,
      keyType,
      publicKey: publicKeyIn(own.public_key, id),
      sign: (message, abort) => this.#signature(id, keyType, message, abort ?? new AbortController().signal),
    })
  }

  async remove(id: string, signal: AbortSignal): Promise<void> {
    const path = this.#pathOf(id)
    if (!(await this.#call({ method: 'GET', path }, signal).catch(ifMissing))) return
    await this.#call({ method: 'POST', path: [...path, 'config'], body: { deletion_allowed: true } }, signal)
    await this.#call({ method: 'DELETE', path }, signal)
  }

  async #signature(id: string, keyType: KeyType, message: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const { family, hash } = keyTypes[keyType]
    const { body } = await this.#call(
      {
        method: 'POST',
        path: [...this.#mount, 'sign', this.#nameOf(id), hashNames[hash]],
        body: {
          input: createHash(hash).update(message).digest('base64'),
          prehashed: true,
          key_version: Number(ownVersion),
          ...(family === 'ec' ? { marshaling_algorithm: 'asn1' } : { signature_algorithm: 'pkcs1v15' }),
        },
      },
      signal,
    )
    const text = signatureAnswer.safeParse(body)
    const parts = text.success ? signaturePattern.exec(text.data.data.signature) : null
    if (!parts) throw refused('malformed-answer', 'the vault answered with something else than a signature')
    // Somebody may have rotated the key: its newest version is not the one that our certificate names.
    if (parts[1] !== ownVersion)
      throw refused('wrong-version', `the vault signed with version ${parts[1]} of the key \`${id}\`: expected ${ownVersion}`)
    return Buffer.from(parts[2]!, 'base64')
  }

  async #call(call: VaultCall, signal: AbortSignal): Promise<VaultAnswer> {
    try {
      return await this.#session.call(call, signal)
    } catch (error) {
      throw error instanceof Failure && passes(error) ? outage(error) : error
    }
  }

  #pathOf(id: string): readonly string[] {
    demandId(id)
    return [...this.#mount, 'keys', this.#nameOf(id)]
  }

  #nameOf(id: string): string {
    return `${this.#prefix}-${id}`
  }
}

function publicKeyIn(pem: string, id: string): Uint8Array {
  try {
    return new Uint8Array(createPublicKey(pem).export({ type: 'spki', format: 'der' }))
  } catch (cause) {
    throw refused('malformed-answer', `the vault told a public key of \`${id}\` that is none`, cause)
  }
}

function ifMissing(error: unknown): undefined {
  if (!failedWith(error, 'vault.not-found')) throw error
}

function refused(what: string, problem: string, cause?: unknown): Failure {
  return new Failure('failed_precondition', `keys.${what}`, { public: problem, ...(cause === undefined ? {} : { cause }) })
}

/** A name of ours is used for one key only, so the version that made its public key is the first. An operator may add others (V-17). */
const ownVersion = '1'
const typeNames: Readonly<Record<KeyType, string>> = {
  'ec-p256': 'ecdsa-p256',
  'ec-p384': 'ecdsa-p384',
  'rsa-2048': 'rsa-2048',
  'rsa-3072': 'rsa-3072',
  'rsa-4096': 'rsa-4096',
}
const keyTypeNames: ReadonlyMap<string, KeyType> = new Map(Object.entries(typeNames).map(([type, name]) => [name, type as KeyType]))
const hashNames = { sha256: 'sha2-256', sha384: 'sha2-384' } as const
const signaturePattern = /^vault:v(\d{1,9}):([A-Za-z0-9+/]{1,4096}={0,2})$/
const signatureAnswer = z.object({ data: z.object({ signature: z.string() }) })
const keyAnswer = z.object({
  data: z.object({
    type: z.string(),
    exportable: z.boolean(),
    keys: z.record(z.string(), z.looseObject({ public_key: z.string().default('') })),
  }),
})
