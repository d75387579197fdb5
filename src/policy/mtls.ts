/** Which connections a workload takes, composed from the `PeerAuthentication`s around it (authorization.md 1.9). */
import type { MtlsMode, PeerAuthentication, PolicySet, Selection } from './policy-set.ts'

export interface EffectiveMtls {
  readonly mode: MtlsMode
  /** Where a port differs. */
  readonly ports: ReadonlyMap<number, MtlsMode>
}

/** Where nothing is said, connections with and without mTLS are taken; rules decide about the latter. */
export const permissive: EffectiveMtls = { mode: 'PERMISSIVE', ports: new Map() }

/** From the widest scope to the narrowest: the whole mesh, the namespace, the workload. What one leaves open it inherits. */
export function effectiveMtls(
  { peerAuthentications, rootNamespace }: PolicySet,
  selects: (selection: Selection) => boolean,
): EffectiveMtls {
  const scopes = { mesh: [] as PeerAuthentication[], namespace: [] as PeerAuthentication[], workload: [] as PeerAuthentication[] }
  for (const one of peerAuthentications) {
    const { namespace, matchLabels } = one
    const scope = matchLabels.length > 0 ? 'workload' : namespace === rootNamespace ? 'mesh' : 'namespace'
    // Of the root namespace with a selector: Istio ignores it, strict mode refuses it where it is read.
    if (scope === 'workload' && namespace === rootNamespace) continue
    if (scope === 'mesh' || selects({ namespace, matchLabels })) scopes[scope].push(one)
  }
  const [mesh, namespace, workload] = [scopes.mesh, scopes.namespace, scopes.workload].map(oldest)
  const mode = workload?.mode ?? namespace?.mode ?? mesh?.mode ?? permissive.mode
  return { mode, ports: new Map(workload?.ports.map(({ port, mode: own }) => [port, own ?? mode])) }
}

/** The mode of one port; of the workload as a whole where the port is not known. */
export const mtlsAt = ({ mode, ports }: EffectiveMtls, port: number | undefined): MtlsMode =>
  (port === undefined ? undefined : ports.get(port)) ?? mode

/** One without a time of creation comes after those that have one; of equals the first counts. */
function oldest(list: readonly PeerAuthentication[]): PeerAuthentication | undefined {
  return list.reduce<PeerAuthentication | undefined>(
    (a, b) => (a && (a.createdAt ?? Infinity) <= (b.createdAt ?? Infinity) ? a : b),
    undefined,
  )
}
