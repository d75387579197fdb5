import { administered } from '../audit/event.ts'
import type { Instant } from '../kernel/clock.ts'
import { days, seconds, type Duration } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { Secret } from '../kernel/log.ts'
import { uuid } from '../kernel/random.ts'
import { checkEntry } from '../registry/entry.ts'
import { joinTokenAgent, joinTokenDigest } from '../registry/join-token.ts'
import type { SpiffeId } from '../spiffe/id.ts'
import { selector } from '../spiffe/selector.ts'
import { callerName, type Caller } from './caller.ts'
import type { Server } from './server.ts'

export interface TokenWish {
  readonly ttl: Duration
  /** A token of the operator's own; one is made up if it is left out. */
  readonly token?: string
  /** A name for the node besides its own: entries may have it as parent. */
  readonly agentId?: SpiffeId
}

/**
 * Makes a token that admits one node, once.
 * @throws Failure `join-token.bad-ttl`, `join-token.malformed`, `join-token.exists`, `entry.*` for the alias
 */
export async function createJoinToken(
  server: Pick<Server, 'trustDomain' | 'clock' | 'random' | 'audit' | 'entries' | 'tokens'>,
  { ttl, token = uuid(server.random), agentId }: TokenWish,
  caller: Caller,
): Promise<{ readonly token: Secret; readonly agent: SpiffeId; readonly expiresAt: Instant }> {
  if (!(ttl >= seconds(1) && ttl <= maxTtl)) {
    throw new Failure('invalid_argument', 'join-token.bad-ttl', {
      public: `the token's lifetime is ${ttl / 1000} s: expected 1 s to ${maxTtl / 1000} s`,
    })
  }
  const agent = joinTokenAgent(server.trustDomain, token)
  const expiresAt = server.clock.now() + ttl
  const alias =
    agentId && checkEntry({ ...plain, spiffeId: agentId, parentId: agent, selectors: [selector('spiffe_id', agent)] }, server.trustDomain)
  await server.tokens.create({ digest: joinTokenDigest(token), expiresAt })
  if (alias) await server.entries.create({ ...alias, id: uuid(server.random), revision: 0n, createdAt: server.clock.now() })
  const subject = agentId ?? 'a node without alias'
  await server.audit.append(
    administered({ what: 'join-token.created', subject, caller: callerName(caller) }, { expiresAt: String(expiresAt) }),
  )
  return { token: new Secret(token), agent, expiresAt }
}

/** Takes a token out of the store: true for exactly one caller, and only before it expires. */
export async function consumeJoinToken({ tokens, clock }: Pick<Server, 'tokens' | 'clock'>, token: string): Promise<boolean> {
  const taken = await tokens.consume(joinTokenDigest(token))
  return taken !== undefined && clock.now() < taken.expiresAt
}

const plain = {
  x509SvidTtl: 0,
  jwtSvidTtl: 0,
  federatesWith: [],
  admin: false,
  downstream: false,
  storeSvid: false,
  dnsNames: [],
  hint: '',
  disableX509SvidPrefetch: false,
  jwtSvidIncludeJti: false,
}
const maxTtl = days(30)
