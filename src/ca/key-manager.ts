import type { Driver } from '../kernel/driver.ts'
import type { KeyType } from '../x509/key-type.ts'
import type { Signer } from '../x509/signature.ts'

/** A key that stays where it is: its public half, and signatures by it. There is no way to export it. */
export interface ManagedKey extends Signer {
  readonly id: string
}

/** PORT: makes and keeps the CA's keys. */
export interface KeyManager extends AsyncDisposable {
  /** Makes a key under `id`, replacing an earlier one of that name. */
  create(id: string, type: KeyType, signal: AbortSignal): Promise<ManagedKey>
  find(id: string, signal: AbortSignal): Promise<ManagedKey | undefined>
  remove(id: string, signal: AbortSignal): Promise<void>
}

export type KeyManagerDriver<Config = never> = Driver<KeyManager, Config>
export const keyManager = <Config>(driver: KeyManagerDriver<Config>): KeyManagerDriver<Config> => driver
