import { z } from 'zod'
import type { Clock } from './clock.ts'
import type { Files } from './files.ts'
import type { Log, Secret } from './log.ts'
import type { Meter } from './meter.ts'
import type { Random } from './random.ts'

/** The ports to the physical world that every driver is opened with. */
export interface World {
  readonly clock: Clock
  readonly random: Random
  readonly files: Files
  readonly log: Log
  readonly meter: Meter
  readonly secrets: Secrets
  /** No TLS connection without X25519MLKEM768 (C-32); where it is absent or false, it is what a driver offers first. */
  readonly requirePostQuantum?: boolean
}

/** Where a secret is to be found. Configuration names the place; only `main/config/secrets.ts` looks there. */
export type SecretReference = { readonly env: string } | { readonly file: string }

/** The schema of a {@link SecretReference}, for the settings of drivers and programs. */
export const secretReference: z.ZodType<SecretReference> = z.union(
  [z.strictObject({ env: z.string().min(1) }), z.strictObject({ file: z.string().min(1) })],
  { error: 'expected `{ file: PATH }` or `{ env: NAME }`: secrets are not written into the configuration' },
)

export interface Secrets {
  /** Reads the secret anew at each call (rule V-12). @throws Failure `secret.missing`, `secret.loose-permissions` */
  read(reference: SecretReference): Promise<Secret>
}

/**
 * The shape of every plug-in: its name, the schema of its configuration, an example that the documentation
 * and the contract suite use, and how to open it. What `open` returns works; there is no `init`.
 */
export interface Driver<Port, Config = never, Kind extends string = string> {
  readonly kind: Kind
  /** Schema of the configuration without its `kind`. */
  readonly config: z.ZodType<Config>
  readonly example: unknown
  open(config: Config, world: World): Promise<Port>
}
