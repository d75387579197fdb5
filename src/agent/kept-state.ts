/** What the agent keeps on disk, so that it need not prove itself again after a restart: its key, its SVID and the bundle. */
import { join } from 'node:path'
import { z } from 'zod'
import { fromUtf8, sameBytes, utf8 } from '../kernel/bytes.ts'
import { Failure } from '../kernel/failure.ts'
import type { Files } from '../kernel/files.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { formatBundleDocument, parseBundle } from '../spiffe/bundle-document.ts'
import { trustDomainOf } from '../spiffe/id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { checkX509Svid } from '../spiffe/x509-svid.ts'
import { formatPem, parseCertificatesPem } from '../x509/pem.ts'
import { readSvidKey } from './svid-key.ts'
import type { AgentCredentials } from './upstream-server.ts'

export interface AgentState {
  readonly credentials: AgentCredentials
  /** False for evidence that works once: then the identity is renewed instead. */
  readonly reattestable: boolean
  readonly bundle: TrustBundle
}

/** One file, replaced in one step: key, SVID and bundle always fit each other, whenever the agent is killed. */
export interface KeptState {
  /** Undefined when there is none. @throws Failure `agent.state-damaged`, `agent.other-trust-domain` */
  load(): Promise<AgentState | undefined>
  save(state: AgentState): Promise<void>
  forget(): Promise<void>
}

/** @throws Failure `directory.loose-permissions`, `directory.not-a-directory` */
export async function openKeptState(directory: string, trustDomain: TrustDomain, files: Files): Promise<KeptState> {
  await files.privateDirectory(directory)
  const path = join(directory, 'agent.json')
  return {
    async load() {
      const content = await files.read(path)
      return content && read(content, path, trustDomain)
    },
    save: (state) => files.writeAtomically(path, write(state)),
    forget: () => files.remove(path),
  }
}

function write({ credentials, reattestable, bundle }: AgentState): Uint8Array {
  const written: z.input<typeof format> = {
    version: 1,
    privateKey: credentials.privateKeyPem,
    chain: credentials.chain.map((one) => formatPem('CERTIFICATE', one.raw)).join(''),
    bundle: formatBundleDocument(bundle),
    reattestable,
  }
  return utf8(JSON.stringify(written, null, 2))
}

function read(content: Uint8Array, path: string, trustDomain: TrustDomain): AgentState {
  const { credentials, bundle, reattestable } = parse(content, path, trustDomain)
  if (trustDomainOf(credentials.spiffeId) === trustDomain) return { credentials, bundle, reattestable }
  throw new Failure('failed_precondition', 'agent.other-trust-domain', {
    public: `the agent is configured for \`${trustDomain}\`, and \`${path}\` holds the identity \`${credentials.spiffeId}\`: use another data directory`,
  })
}

function parse(content: Uint8Array, path: string, trustDomain: TrustDomain): AgentState {
  try {
    const written = format.parse(JSON.parse(fromUtf8(content)))
    const chain = parseCertificatesPem(written.chain)
    const key = readSvidKey(written.privateKey)
    if (!sameBytes(key.signer.publicKey, chain[0]!.spki)) throw new Error('the key is not that of the certificate')
    const credentials = { spiffeId: checkX509Svid(chain[0]!), chain, privateKeyPem: key.privateKeyPem }
    return { credentials, reattestable: written.reattestable, bundle: parseBundle(trustDomain, written.bundle) }
  } catch {
    // Without the cause: a parser's message may quote what it read, and a private key is in there.
    throw new Failure('failed_precondition', 'agent.state-damaged', {
      public: `\`${path}\` cannot be read as the identity of an agent: remove it and let the agent join again`,
    })
  }
}

const format = z.strictObject({
  version: z.literal(1),
  privateKey: z.string(),
  chain: z.string(),
  bundle: z.string(),
  reattestable: z.boolean(),
})
