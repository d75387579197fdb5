/** The drivers there are: one line each. Nothing else in the program imports a driver. */
import { joinToken } from '../attestation/node/join-token.ts'
import { unix } from '../attestation/workload/unix.ts'
import { file } from '../audit/sinks/file.ts'
import { disk } from '../ca/keys/disk.ts'
import { memory } from '../ca/keys/memory.ts'
import { pkcs11 } from '../ca/keys/pkcs11.ts'
import { vaultTransit } from '../ca/keys/vault-transit.ts'
import { diskUpstream } from '../ca/upstream/disk.ts'
import { selfSigned } from '../ca/upstream/self-signed.ts'
import { vault } from '../ca/upstream/vault.ts'
import { sqlite } from '../store/sqlite.ts'

export const auditSinks = [file] as const
export const keyManagers = [disk, memory, pkcs11, vaultTransit] as const
export const nodeAttestors = [joinToken] as const
export const stores = [sqlite] as const
export const upstreamAuthorities = [diskUpstream, selfSigned, vault] as const
export const workloadAttestors = [unix] as const
