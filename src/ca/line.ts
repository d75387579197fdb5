import type { KeyType } from '../x509/key-type.ts'
import type { AuthorityKind } from './authorities.ts'
import type { JournalRecord } from './journal.ts'
import type { ManagedKey } from './key-manager.ts'
import type { Authority, Slots } from './slots.ts'

/** What differs between the kinds of authority. */
export interface Line<M> {
  readonly kind: AuthorityKind
  readonly keyType: KeyType
  slots(): Slots<M>
  /** The record with other slots of this kind. */
  with(changed: Slots<M>): JournalRecord
  nameOf(material: M): string
  /** The root above it, absent for a root of our own. */
  rootOf?(material: M): string | undefined
  /** SubjectPublicKeyInfo, DER. */
  publicKeyOf(material: M): Uint8Array
  make(key: ManagedKey, signal: AbortSignal): Promise<Authority<M>>
}
