/** One X509-SVID of a workload: asked for, checked, and ready to be handed out. */
import { concat, sameBytes } from '../kernel/bytes.ts'
import type { Instant } from '../kernel/clock.ts'
import { Failure } from '../kernel/failure.ts'
import type { RegistrationEntry } from '../registry/entry.ts'
import type { BundleSet } from '../spiffe/bundle-set.ts'
import { verifyX509Svid } from '../spiffe/x509-svid.ts'
import { createCertificateRequest } from '../x509/certificate-request.ts'
import { formatPem } from '../x509/pem.ts'
import type { HeldIdentity } from './identities.ts'
import { makeSvidKey, type SvidKey } from './svid-key.ts'
import type { SignedX509Svid } from './upstream-server.ts'

/** A request under way: the key stays here, the rest goes to the server. */
export interface SvidRequest {
  readonly entry: RegistrationEntry
  readonly key: SvidKey
  readonly csr: Uint8Array
}

/** A new key and a request for an entry's SVID. */
export async function svidRequest(entry: RegistrationEntry): Promise<SvidRequest> {
  const key = await makeSvidKey()
  return { entry, key, csr: await createCertificateRequest({ signer: key.signer, uris: [entry.spiffeId] }) }
}

/**
 * What the server signed, ready for workloads, if it is what was asked for: the entry's identity, our key, valid now under the bundle.
 * @throws Failure `svid.wrong-identity`, `svid.foreign-key`, `x509-svid.*`, `chain.*`
 */
export function checkedIdentity({ entry, key }: SvidRequest, { chain }: SignedX509Svid, bundles: BundleSet, at: Instant): HeldIdentity {
  const { spiffeId, leaf } = verifyX509Svid(chain, bundles, at)
  if (spiffeId !== entry.spiffeId)
    throw refused('wrong-identity', `the server signed \`${spiffeId}\` where \`${entry.spiffeId}\` was asked for`)
  if (!sameBytes(leaf.spki, key.signer.publicKey)) throw refused('foreign-key', 'the server signed another key than the one that was sent')
  return Object.freeze({
    entryId: entry.id,
    spiffeId,
    hint: entry.hint,
    chain,
    chainDer: concat(chain.map((one) => one.raw)),
    chainPem: chain.map((one) => formatPem('CERTIFICATE', one.raw)).join(''),
    privateKeyDer: key.privateKeyDer,
    privateKeyPem: key.privateKeyPem,
  })
}

function refused(what: string, text: string): Failure {
  return new Failure('unauthenticated', `svid.${what}`, { public: text })
}
