/** Identities and bundles as Envoy's Secret messages. */
import { create, toBinary } from '@bufbuild/protobuf'
import { anyPack } from '@bufbuild/protobuf/wkt'
import type { HeldIdentity, WorkloadIdentities } from '../agent/identities.ts'
import { utf8 } from '../kernel/bytes.ts'
import { type Secret, SecretSchema, SPIFFECertValidatorConfigSchema } from '../rpc/gen/envoy/extensions/transport_sockets/tls/v3/tls_pb.ts'
import type { TrustBundle } from '../spiffe/bundle.ts'
import { formatBundlePem } from '../spiffe/bundle-document.ts'
import { contentVersion, type Resource, type Resources } from '../xds/resources.ts'
import { type NamedSecret, secretNames } from './resource-names.ts'

/**
 * How peers are verified: `spiffe`, by Envoy's SPIFFE validator, which keeps trust domains apart;
 * or `trusted-ca`, by plain roots, for proxies that ask for it. Plain roots cannot keep trust domains apart, so only one bundle fits in a secret.
 */
export type Validation = 'spiffe' | 'trusted-ca'

export const secretTypeUrl = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret'

/** All secrets of a workload by every name they have. Made once for each rotation and shared by all streams of the workload. */
export function secretsOf(held: WorkloadIdentities, validation: Validation): Resources {
  const made = madeBefore[validation].get(held)
  if (made) return made
  const resources = new Map<string, Resource>()
  for (const [name, secret] of secretNames(held)) {
    const resource = toResource(name, secret, validation)
    if (resource) resources.set(name, resource)
  }
  madeBefore[validation].set(held, resources)
  return resources
}

function toResource(name: string, secret: NamedSecret, validation: Validation): Resource | undefined {
  if (secret.kind === 'certificate') {
    // The chain alone: it changes with the key, and no version is made from a private key.
    return { version: contentVersion(secret.identity.chainDer), value: toBinary(SecretSchema, certificateSecret(name, secret.identity)) }
  }
  const [first, ...others] = secret.bundles
  if (validation === 'trusted-ca' && (!first || others.length > 0)) return undefined
  const value = toBinary(SecretSchema, validation === 'spiffe' ? spiffeValidator(name, secret.bundles) : plainRoots(name, first!))
  return { version: contentVersion(value), value }
}

function certificateSecret(name: string, identity: HeldIdentity): Secret {
  return create(SecretSchema, {
    name,
    type: {
      case: 'tlsCertificate',
      value: { certificateChain: inline(identity.chainPem), privateKey: inline(identity.privateKeyPem) },
    },
  })
}

function spiffeValidator(name: string, bundles: readonly TrustBundle[]): Secret {
  const config = create(SPIFFECertValidatorConfigSchema, {
    trustDomains: bundles
      .toSorted((a, b) => (a.trustDomain < b.trustDomain ? -1 : 1))
      .map((bundle) => ({ name: bundle.trustDomain, trustBundle: inline(formatBundlePem(bundle)) })),
  })
  return create(SecretSchema, {
    name,
    type: {
      case: 'validationContext',
      value: {
        customValidatorConfig: { name: 'envoy.tls.cert_validator.spiffe', typedConfig: anyPack(SPIFFECertValidatorConfigSchema, config) },
      },
    },
  })
}

function plainRoots(name: string, bundle: TrustBundle): Secret {
  return create(SecretSchema, { name, type: { case: 'validationContext', value: { trustedCa: inline(formatBundlePem(bundle)) } } })
}

const inline = (text: string) => ({ specifier: { case: 'inlineBytes' as const, value: utf8(text) } })

const madeBefore: Readonly<Record<Validation, WeakMap<WorkloadIdentities, Resources>>> = {
  spiffe: new WeakMap(),
  'trusted-ca': new WeakMap(),
}
