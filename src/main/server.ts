/** The server, wired. Nothing is decided here; read it as the table of contents. */
import { dirname, join } from 'node:path'
import { openPeerCredentials } from '../attestation/peer/linux.ts'
import type { NodeVerifier } from '../attestation/node-attestor.ts'
import { openTrail } from '../audit/trail.ts'
import { openIntents } from '../ca/intents.ts'
import { issuanceProfile, type KeyTypes } from '../ca/profile.ts'
import { openCertificateAuthority } from '../ca/own-authority.ts'
import { overThreads } from '../ca/workbench-threads.ts'
import { Scope } from '../kernel/scope.ts'
import { listenTls, listenUnix } from '../rpc/listen.ts'
import { measured } from '../rpc/measure.ts'
import { detailsFor } from '../server-api/messages.ts'
import { privateServerApi, serverApi } from '../server-api/services.ts'
import { remotePeer, type LocalPeer, type Peer } from '../server/caller.ts'
import { EntryCache } from '../server/entry-cache.ts'
import { WatchedHealth } from '../server/health.ts'
import { OwnIdentity } from '../server/own-identity.ts'
import { Policies } from '../server/policies.ts'
import { keepPruned } from '../server/prune.ts'
import { consumeJoinToken } from '../server/manage-tokens.ts'
import { Shadow } from '../server/shadow.ts'
import type { Server } from '../server/server.ts'
import { holdDirectory } from '../store/hold.ts'
import { measured as measuredStore } from '../store/measure.ts'
import { nodeAttestors } from './builtins.ts'
import type { ServerConfig } from './config/server.ts'
import { Metrics } from './metrics.ts'
import { ownApiPolicies, trustedPolicyKeys } from './policies.ts'
import { keepReading, type Rereading } from './reload.ts'
import { openWorkbenchThreads } from './threads.ts'
import { version } from './version.ts'
import { systemWorld } from './world.ts'

/** Runs a server until `stop` aborts, on a configuration that may be read again. @throws Failure for whatever keeps it from starting, named with its place */
export async function runServer(config: ServerConfig, stop: AbortSignal, rereading: Rereading): Promise<void> {
  await using owned = new AsyncDisposableStack()
  const { trustDomain } = config
  const metrics = new Metrics('server', config)
  const world = { ...systemWorld(config.log, metrics.meter), requirePostQuantum: config.tls.requirePostQuantum }
  // They load while the rest is opened.
  const workbenches = openWorkbenchThreads()
  workbenches.catch(() => {})
  owned.defer(() =>
    workbenches.then(
      (threads) => threads[Symbol.asyncDispose](),
      () => {},
    ),
  )
  await world.files.privateDirectory(config.dataDirectory)
  owned.use(holdDirectory(config.dataDirectory))
  await world.files.privateDirectory(dirname(config.adminSocket))

  const keys = owned.use(await config.keyManager.open(world))
  const upstream = owned.use(await config.upstreamAuthority.open(world))
  const store = measuredStore(owned.use(await config.store.open(world)), world.meter)
  const audit = owned.use(
    await openTrail(await config.audit.open(world), { ...world, dangerouslyGoOnWithout: config.dangerouslySignWithoutAudit }),
  )
  const policies = await Policies.open(store.policies, await ownApiPolicies(), await trustedPolicyKeys(config.policies.trustedKeys))

  const directory = join(config.dataDirectory, 'intents')
  const intents = owned.use(await openIntents({ ...world, directory, records: store.issuances }))
  const workbench = overThreads(await workbenches)
  const { ca: caSettings, svid } = config
  const profile = issuanceProfile({ ca: caSettings, svid, backdate: svid.backdate, oneKeyOneIdentity: svid.oneKeyOneIdentity })
  let keyTypes: KeyTypes = config.ca
  const authority = {
    ...world,
    keyTypes: () => keyTypes,
    trustDomain,
    keys,
    upstream,
    audit,
    profile,
    journal: store.journal,
    intents,
    workbench,
    serverId: config.serverId,
    refreshHint: config.refreshHint,
    witSvid: config.experimental.witSvid,
  }
  const ca = owned.use(await openCertificateAuthority(authority))

  const verifiers = new Map<string, NodeVerifier>()
  const adminIds = new Set(config.adminIds)
  const server: Server = {
    ...world,
    ...store,
    trustDomain,
    ca,
    audit,
    policies,
    shadow: new Shadow(),
    verifiers,
    adminIds,
    entryCache: new EntryCache(store.entries, trustDomain),
  }
  for (const attestor of nodeAttestors.filter(({ kind }) => config.nodeAttestors.includes(kind))) {
    const consume = (token: string) => consumeJoinToken(server, token)
    verifiers.set(attestor.kind, owned.use(await attestor.openVerifier({}, { ...world, trustDomain, consumeJoinToken: consume })))
  }
  const identity = await OwnIdentity.open(server, stop)
  const health = await WatchedHealth.open({ ...server, identity })

  const scope = owned.use(new Scope(stop, { grace: config.shutdownGrace }))
  scope.run('ca rotation', (signal) => ca.keepFresh(signal))
  scope.run('configuration', (signal) => keepReading(config, rereading, { ...world, use: (types) => (keyTypes = types) }, signal))
  scope.run('issuance records', (signal) => intents.keepCopied(signal))
  scope.run('server identity', (signal) => identity.keepFresh(signal))
  scope.run('health', (signal) => health.keepWatching(signal))
  scope.run('pruning', (signal) => keepPruned(server, signal))

  const wrap = measured<Peer>(world)
  const kernel = process.platform === 'linux' ? await openPeerCredentials() : undefined
  const local = owned.use(
    await listenUnix({
      ...world,
      path: config.adminSocket,
      mode: 0o600,
      services: privateServerApi(server, health.state),
      wrap,
      detailsOf: detailsFor,
      peerOf: (socket): LocalPeer => {
        using peer = kernel?.of(socket)
        return {
          kind: 'local',
          uid: peer?.uid ?? process.getuid?.() ?? -1,
          gid: peer?.gid ?? process.getgid?.() ?? -1,
          pid: peer?.pid ?? -1,
        }
      },
    }),
  )
  const remote = owned.use(
    await listenTls({
      ...world,
      host: config.listen.host,
      port: config.listen.port,
      ...config.tls,
      identity: identity.identity,
      services: serverApi(server),
      wrap,
      detailsOf: detailsFor,
      limits: { connectionAge: config.listen.maxConnectionAge },
      peerOf: ({ chain, remoteAddress }) => remotePeer(server, chain, remoteAddress),
    }),
  )
  owned.use(await metrics.show(world))
  world.log.info('server ready', { version, trustDomain, address: remote.address, port: remote.port, adminSocket: local.address })
  await scope.finished
  world.log.info('server stopped')
}
