/** Small makers of what a store keeps, for its tests. */
import { type AttestedNode } from '../../src/registry/node.ts'
import type { RegistrationEntry } from '../../src/registry/entry.ts'
import { parseSpiffeId } from '../../src/spiffe/id.ts'
import { parseSelector, uniqueSelectors } from '../../src/spiffe/selector.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'

export function entry(
  fields: Omit<Partial<RegistrationEntry>, 'spiffeId' | 'parentId' | 'selectors' | 'federatesWith'> & {
    spiffeId?: string
    parentId?: string
    selectors?: string[]
    federatesWith?: string[]
  } = {},
): RegistrationEntry {
  const {
    spiffeId = 'spiffe://example.org/web',
    parentId = 'spiffe://example.org/node',
    selectors = ['unix:uid:1000'],
    federatesWith = [],
    ...rest
  } = fields
  return {
    id: 'entry-1',
    x509SvidTtl: 0,
    jwtSvidTtl: 0,
    admin: false,
    downstream: false,
    storeSvid: false,
    dnsNames: [],
    hint: '',
    disableX509SvidPrefetch: false,
    jwtSvidIncludeJti: false,
    revision: 0n,
    createdAt: 1_767_225_600_000,
    ...rest,
    spiffeId: parseSpiffeId(spiffeId),
    parentId: parseSpiffeId(parentId),
    selectors: uniqueSelectors(selectors.map(parseSelector)),
    federatesWith: federatesWith.map(parseTrustDomain),
  }
}

export function node(fields: Omit<Partial<AttestedNode>, 'id' | 'selectors'> & { id?: string; selectors?: string[] } = {}): AttestedNode {
  const { id = 'spiffe://example.org/spire/agent/join_token/a', selectors = [], ...rest } = fields
  return {
    attestationType: 'join_token',
    serial: 'aa01',
    expiresAt: 1_767_229_200_000,
    pending: [],
    superseded: [],
    canReattest: false,
    banned: false,
    agentVersion: '',
    ...rest,
    id: parseSpiffeId(id),
    selectors: uniqueSelectors(selectors.map(parseSelector)),
  }
}

/** Settled promises, told apart. */
export async function outcomes<T>(promises: readonly Promise<T>[]): Promise<{ values: T[]; errors: unknown[] }> {
  const settled = await Promise.allSettled(promises)
  return {
    values: settled.filter((one) => one.status === 'fulfilled').map((one) => one.value),
    errors: settled.filter((one) => one.status === 'rejected').map((one) => one.reason as unknown),
  }
}
