import type { z } from 'zod'
import type { World } from '../kernel/driver.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'

/** What a node proved. `idPath` is made of validated segments only. */
export interface ProvenNode {
  readonly id: SpiffeId
  readonly selectors: readonly Selector[]
  readonly canReattest: boolean
}

/** Asks the agent for an answer to a challenge and waits for it. */
export type Challenge = (challenge: Uint8Array) => Promise<Uint8Array>

/** The server's half: verifies evidence. @throws Failure with a stable reason for each denial */
export interface NodeVerifier extends AsyncDisposable {
  verify(payload: Uint8Array, challenge: Challenge, signal: AbortSignal): Promise<ProvenNode>
}

/** The agent's half: produces evidence. */
export interface NodeProver extends AsyncDisposable {
  readonly type: string
  payload(signal: AbortSignal): Promise<Uint8Array>
  /** Absent when this kind of evidence has no challenges. */
  answer?(challenge: Uint8Array, signal: AbortSignal): Promise<Uint8Array>
}

/** What the server's half may use beyond the world. */
export interface VerifierWorld extends World {
  readonly trustDomain: TrustDomain
  /** Takes a join token out of the store: true for exactly one caller, and only before it expires. */
  consumeJoinToken(token: string): Promise<boolean>
}

/** PORT: one kind of node evidence, both halves in one file, because a handshake is one thought. */
export interface NodeAttestorDriver<ServerConfig = never, AgentConfig = never> {
  readonly kind: string
  readonly serverConfig: z.ZodType<ServerConfig>
  readonly agentConfig: z.ZodType<AgentConfig>
  readonly example: { readonly server: unknown; readonly agent: unknown }
  openVerifier(config: ServerConfig, world: VerifierWorld): Promise<NodeVerifier>
  openProver(config: AgentConfig, world: World): Promise<NodeProver>
}

export const nodeAttestor = <ServerConfig, AgentConfig>(
  driver: NodeAttestorDriver<ServerConfig, AgentConfig>,
): NodeAttestorDriver<ServerConfig, AgentConfig> => driver
