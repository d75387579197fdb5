/** Bundle documents, bundle maps and key sets, told and judged; and a bundle of any form, to verify with. */
import { Failure } from '../../kernel/failure.ts'
import { parseKeySet, readBundle } from '../../spiffe/bundle-document.ts'
import type { TrustBundle } from '../../spiffe/bundle.ts'
import { parseTrustDomain, type TrustDomain } from '../../spiffe/trust-domain.ts'
import { type Certificate, parseCertificate } from '../../x509/certificate.ts'
import { parseCertificatesPem } from '../../x509/pem.ts'
import type { JsonObject } from '../../spiffe/json.ts'
import { isObject, type Json, type JsonDocument, keysIn } from '../documents.ts'
import { readJson } from '../json.ts'
import { domainsIn } from '../rules/bundle.ts'
import { told } from '../rule.ts'
import { type Fact, factsOf, type Flaw, flawsOf, type Inspected, type Looking, refusalFlaw } from './inspection.ts'

type Authority = (certificate: Certificate, looking: Looking) => Inspected

/** A SPIFFE bundle document, and every X.509 authority in it. */
export function inspectBundle(document: JsonDocument, looking: Looking, authority: Authority, name = ''): Inspected[] {
  // Inside of a map there is no hint when to look again (B-12).
  const flaws = flawsOf('bundle', document, name === '' ? [] : ['B-3'])
  flaws.push(...refusedAsBundle(document, name, flaws))
  const { value } = document
  const bundle: Inspected = {
    kind: 'bundle',
    title: name === '' ? 'a SPIFFE bundle document' : `the bundle of ${name}`,
    facts: factsOf([
      ['sequence', value['spiffe_sequence'] === undefined ? undefined : told(value['spiffe_sequence'])],
      ['refresh hint', value['spiffe_refresh_hint'] === undefined ? undefined : `${told(value['spiffe_refresh_hint'])} s`],
      ...countedKeys(keysIn(document)),
    ]),
    flaws,
  }
  return [bundle, ...keysIn(document).flatMap((key) => certificatesIn(key).map((one) => authority(one, looking)))]
}

/** A SPIFFE bundle map, and every bundle in it. */
export function inspectMap(document: JsonDocument, looking: Looking, authority: Authority): Inspected[] {
  const domains = Object.entries(domainsIn(document) ?? {})
  const map: Inspected = {
    kind: 'bundle-map',
    title: 'a SPIFFE bundle map',
    facts: factsOf([['trust domains', domains.map(([name]) => name).join(', ') || 'none']]),
    flaws: flawsOf('map', document),
  }
  return [
    map,
    ...domains.flatMap(([name, value]) => (isObject(value) ? inspectBundle({ value: value as JsonObject }, looking, authority, name) : [])),
  ]
}

/** A plain JWK set, as the Workload API hands out. */
export function inspectKeySet(document: JsonDocument): Inspected {
  return { kind: 'key-set', title: 'a JWK set', facts: countedKeys(keysIn(document)), flaws: flawsOf('keySet', document) }
}

/**
 * The bundle of a trust domain, from whatever form it has: PEM, a bundle document, a bundle map, or a plain key set for tokens.
 * @throws Failure `usage.trust-bundle`
 */
export function trustBundleFor(name: string, text: string): TrustBundle {
  try {
    const trustDomain = parseTrustDomain(name)
    if (!text.trimStart().startsWith('{')) return bundleWith(trustDomain, parseCertificatesPem(text))
    const document = readJson(text)
    const domains = domainsIn(document)
    if (domains)
      return isObject(domains[trustDomain]) ? readBundle(trustDomain, domains[trustDomain] as JsonObject) : bundleWith(trustDomain, [])
    const keys = keysIn(document)
    if (keys.length === 0 || keys.some(({ use, x5c }) => use !== undefined || x5c !== undefined))
      return readBundle(trustDomain, document.value)
    // A plain set does not say which tokens it is for.
    return {
      ...bundleWith(trustDomain, []),
      jwtAuthorities: parseKeySet('jwt-svid', text),
      witAuthorities: parseKeySet('wit-svid', text),
    }
  } catch (cause) {
    if (cause instanceof Failure && cause.reason.startsWith('trust-domain.')) return bundleWith('' as TrustDomain, [])
    throw new Failure('invalid_argument', 'usage.trust-bundle', {
      public: `the trust bundle cannot be read: expected PEM, a SPIFFE bundle document, a bundle map or a JWK set: ${Failure.from(cause).message}`,
      cause,
    })
  }
}

function bundleWith(trustDomain: TrustDomain, certificates: readonly Certificate[]): TrustBundle {
  const x509Authorities = certificates.map((certificate) => ({ certificate, tainted: false }))
  return { trustDomain, x509Authorities, jwtAuthorities: [], witAuthorities: [], sequence: 0n }
}

/** What a reader of ours refuses, where no rule has said it. */
function refusedAsBundle({ value }: JsonDocument, name: string, known: readonly Flaw[]): Flaw[] {
  try {
    readBundle(name as TrustDomain, value)
    return []
  } catch (error) {
    return known.length > 0 ? [] : refusalFlaw(error, known)
  }
}

function countedKeys(keys: readonly Json[]): Fact[] {
  const groups = Map.groupBy(keys, ({ use }) => (use === undefined ? 'keys without a use' : `keys for ${told(use)}`))
  return factsOf([...groups].map(([use, list]) => [use, `${list.length}${tellKeyIds(list)}`]))
}

function tellKeyIds(keys: readonly Json[]): string {
  const ids = keys.flatMap(({ kid }) => (kid === undefined ? [] : [told(kid)]))
  return ids.length === 0 ? '' : `: ${ids.join(', ')}`
}

function certificatesIn(key: Json): Certificate[] {
  const chain = key['x5c']
  try {
    return Array.isArray(chain) && typeof chain[0] === 'string' ? [parseCertificate(Buffer.from(chain[0], 'base64'))] : []
  } catch {
    return []
  }
}
