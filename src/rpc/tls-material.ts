import { KeyObject } from 'node:crypto'
import type { SecureVersion, TLSSocket } from 'node:tls'
import { Failure } from '../kernel/failure.ts'

/** A certificate chain, PEM, leaf first, and the key of its leaf. */
export interface TlsIdentity {
  readonly cert: string
  readonly key: KeyObject | string
}

/** The identity in the form that `node:tls` takes. */
export function tlsKeyPair({ cert, key }: TlsIdentity): { cert: string; key: string } {
  return { cert, key: key instanceof KeyObject ? key.export({ format: 'pem', type: 'pkcs8' }) : key }
}

/** What both ends agree on: HTTP/2 only, TLS 1.2 or later, a hybrid post-quantum key exchange where the other side can. */
export const tlsDefaults = {
  ALPNProtocols: ['h2'],
  minVersion: 'TLSv1.2' as SecureVersion,
  ecdhCurve: 'X25519MLKEM768:X25519:P-256:P-384',
}

/**
 * What an end sets instead that takes no connection without a hybrid post-quantum key exchange (C-32): the handshake with anybody else fails.
 * TLS 1.3 alone has such groups; Node does not tell a server which group was agreed on; here only one can have been.
 */
export function keyExchange(requirePostQuantum: boolean | undefined) {
  return requirePostQuantum ? { minVersion: 'TLSv1.3' as SecureVersion, ecdhCurve: 'X25519MLKEM768' } : {}
}

/** The group that the key exchange of a connection took, `X25519MLKEM768` for example; Node tells it to clients only, and calls it a name. */
export function keyExchangeOf(socket: TLSSocket): string {
  const { name = '' } = (socket.getEphemeralKeyInfo() ?? {}) as { name?: string }
  return name
}

/**
 * The certificates that the other side presented, DER, leaf first; empty if it presented none. Nothing about them is verified.
 * @throws Failure `tls.chain-too-long`
 */
export function presentedChain(socket: TLSSocket): readonly Uint8Array[] {
  const chain: Uint8Array[] = []
  for (let at = socket.getPeerX509Certificate(); at !== undefined;) {
    if (chain.length === maxChainLength) {
      throw new Failure('unauthenticated', 'tls.chain-too-long', {
        public: `the certificate chain is too long: at most ${maxChainLength} are read`,
      })
    }
    chain.push(at.raw)
    const issuer = at.issuerCertificate
    at = issuer && issuer.fingerprint256 !== at.fingerprint256 ? issuer : undefined
  }
  return chain
}

/** Leaf, intermediates and root of the longest chain anybody has a use for. */
const maxChainLength = 16
