/** The agent's configuration: as written (YAML) → as meant. Every default stands here. */
import { z } from 'zod'
import { secretReference } from '../../kernel/driver.ts'
import { minutes, seconds } from '../../kernel/duration.ts'
import { workloadAttestors } from '../builtins.ts'
import type { ConfigSource } from './load.ts'
import { loadConfig } from './load.ts'
import { durationBetween, log, metrics, oneOf, socketPath, tls, trustDomain, workloadSocketPath } from './schema.ts'

/** As written: unknown keys are refused. */
export const agentConfigSchema = z.strictObject({
  trustDomain,
  dataDirectory: z.string().min(1).default('/var/lib/vidimus/agent'),
  /** Where workloads and Envoys connect. */
  socket: workloadSocketPath.prefault('/run/vidimus/agent/public/api.sock'),
  /** Where operators ask; only the agent's own user may enter its directory. */
  adminSocket: socketPath.prefault('/run/vidimus/agent/private/admin.sock'),
  server: z.strictObject({ host: z.string().min(1), port: z.int().min(1).max(65_535).default(8081) }),
  tls,
  /** The trust bundle that the server must prove itself against at first contact: PEM or a SPIFFE bundle document. */
  trustBundle: z.string().min(1),
  joinToken: secretReference.optional(),
  workloadAttestors: z
    .array(oneOf(workloadAttestors))
    .min(1)
    .max(20)
    .prefault([{ kind: 'unix' }]),
  syncInterval: durationBetween(seconds(0.2), minutes(10)).prefault('5s'),
  policies: z
    .strictObject({
      /** Files with public keys, PEM. With any, only policies that one of them signed are enforced, whatever the server says. */
      trustedKeys: z.array(z.string().min(1)).max(16).default([]),
    })
    .prefault({}),
  /** What may change with its standard: WIT-SVIDs are incubating. */
  experimental: z.strictObject({ witSvid: z.boolean().default(false) }).prefault({}),
  metrics,
  log,
  shutdownGrace: durationBetween(seconds(1), minutes(10)).prefault('10s'),
})

/** As meant. */
export type AgentConfig = Readonly<z.infer<typeof agentConfigSchema>>

/** @throws Failure `config.invalid` */
export function loadAgentConfig(source: ConfigSource, overrides: readonly string[] = []): AgentConfig {
  return loadConfig(agentConfigSchema, source, overrides)
}
