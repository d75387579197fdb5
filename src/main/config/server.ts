/** The server's configuration: as written (YAML) → as meant. Every default stands here. */
import { join } from 'node:path'
import { z } from 'zod'
import { expected } from '../../cli/wording.ts'
import { days, minutes, seconds, type Duration } from '../../kernel/duration.ts'
import { demandName } from '../../spiffe/claims.ts'
import { subjectFields } from '../../x509/subject.ts'
import { auditSinks, keyManagers, nodeAttestors, stores, upstreamAuthorities } from '../builtins.ts'
import type { ConfigSource } from './load.ts'
import { loadConfig } from './load.ts'
import { durationBetween, log, metrics, oneOf, socketPath, spiffeId, tls, trustDomain } from './schema.ts'
import { parsed } from '../../cli/flags.ts'

const keyType = z.enum(['ec-p256', 'ec-p384', 'rsa-2048', 'rsa-4096'])

/** As written: unknown keys are refused, every section may be left out except `trustDomain`. */
export const serverConfigSchema = z.strictObject({
  trustDomain,
  serverId: z
    .string()
    .regex(/^[a-z0-9-]{1,63}$/, { error: ({ input }) => expected('1 to 63 of `a-z`, `0-9` and `-`', input) })
    .default('server'),
  dataDirectory: z.string().min(1).default('/var/lib/vidimus/server'),
  adminSocket: socketPath.prefault('/run/vidimus/server/private/api.sock'),
  listen: z
    .strictObject({
      host: z.string().min(1).default('0.0.0.0'),
      port: z.int().min(0).max(65_535).default(8081),
      maxConnectionAge: durationBetween(seconds(1), days(1)).prefault('3m'),
    })
    .prefault({}),
  tls,
  ca: z
    .strictObject({
      lifetime: durationBetween(seconds(30), days(3650)).prefault('24h'),
      keyType: keyType.default('ec-p256'),
      jwtKeyType: keyType.default('ec-p256'),
      /** Of authorities that are made from now on; not every verifier takes them (C-6). */
      nameConstraints: z.boolean().default(false),
    })
    .prefault({}),
  svid: z
    .strictObject({
      x509: durationBetween(seconds(5), days(30)).prefault('1h'),
      x509Longest: durationBetween(seconds(5), days(30)).prefault('24h'),
      jwt: durationBetween(seconds(5), days(1)).prefault('5m'),
      jwtLongest: durationBetween(seconds(5), days(1)).prefault('1h'),
      agent: durationBetween(seconds(5), days(30)).prefault('1h'),
      backdate: durationBetween(0, minutes(5)).prefault('30s'),
      oneKeyOneIdentity: z.boolean().default(false),
      /** What registration entries may add to their SVIDs, by name. */
      additions: z
        .strictObject({
          subject: z.array(z.enum(subjectFields)).max(subjectFields.length).default([]),
          claims: z.array(parsed(claimName)).max(64).default([]),
        })
        .prefault({}),
    })
    .prefault({}),
  refreshHint: durationBetween(seconds(1), days(1)).prefault('5m'),
  adminIds: z.array(spiffeId).max(100).default([]),
  store: oneOf(stores).optional(),
  keyManager: oneOf(keyManagers).optional(),
  upstreamAuthority: oneOf(upstreamAuthorities).prefault({ kind: 'self-signed' }),
  audit: oneOf(auditSinks).optional(),
  dangerouslySignWithoutAudit: z.boolean().default(false),
  nodeAttestors: z
    .array(z.enum(nodeAttestors.map((driver) => driver.kind)))
    .min(1)
    .default(['join_token']),
  policies: z
    .strictObject({
      /** Files with public keys, PEM. With any, only policies that one of them signed are put in force. */
      trustedKeys: z.array(z.string().min(1)).max(16).default([]),
    })
    .prefault({}),
  /** What the SPIFFE project calls incubating: it may change with any version. */
  experimental: z.strictObject({ witSvid: z.boolean().default(false) }).prefault({}),
  metrics,
  log,
  shutdownGrace: durationBetween(seconds(1), minutes(10)).prefault('10s'),
})

/** As meant: nothing is optional any more. */
export type ServerConfig = Readonly<ReturnType<typeof meant>>

/** @throws Failure `config.invalid` */
export function loadServerConfig(source: ConfigSource, overrides: readonly string[] = []): ServerConfig {
  return meant(loadConfig(serverConfigSchema, source, overrides))
}

function meant({
  svid,
  store,
  keyManager,
  upstreamAuthority,
  audit,
  nodeAttestors,
  log,
  shutdownGrace,
  ...rest
}: z.infer<typeof serverConfigSchema>) {
  const within = (name: string): string => join(rest.dataDirectory, name)
  return {
    ...rest,
    svid: { ...svid, x509Longest: longest(svid.x509Longest, svid.x509), jwtLongest: longest(svid.jwtLongest, svid.jwt) },
    store: store ?? chosen(stores, { kind: 'sqlite', path: within('vidimus.sqlite') }),
    keyManager: keyManager ?? chosen(keyManagers, { kind: 'disk', directory: within('keys') }),
    upstreamAuthority,
    audit: audit ?? chosen(auditSinks, { kind: 'file', path: within('audit.log') }),
    nodeAttestors,
    log,
    shutdownGrace,
  }
}

function claimName(name: string): string {
  demandName(name)
  return name
}

/** The default lifetime is always within the longest one. */
const longest = (limit: Duration, standard: Duration): Duration => Math.max(limit, standard)

const chosen = <Port, World>(drivers: Parameters<typeof oneOf<Port, World>>[0], settings: object) =>
  oneOf<Port, World>(drivers).parse(settings)
