/** Bundles of several trust domains in one document: SPIFFE Trust Domain and Bundle section 5. */
import { Failure } from '../kernel/failure.ts'
import { bundleObject, parseDocument, readBundle } from './bundle-document.ts'
import { bundleSet, type BundleSet } from './bundle-set.ts'
import { formatJson, isJsonObject } from './json.ts'
import { parseTrustDomain } from './trust-domain.ts'

/** A bundle map, each trust domain once (B-11). How often the map itself is read anew is not for its bundles to say: they carry no refresh hint (B-12). */
export function formatBundleMap(bundles: BundleSet): string {
  return formatJson({
    trust_domains: Object.fromEntries([...bundles.all()].map((bundle) => [bundle.trustDomain, bundleObject(bundle)])),
  })
}

/**
 * Reads a bundle map, all of it or nothing (B-13). A name that occurs twice is refused (B-11), and the refresh hints of single bundles are dropped (B-12).
 * @throws Failure `bundle.no-trust-domains`, `bundle.malformed` and the others of `parseBundleDocument`, `trust-domain.*`
 */
export function parseBundleMap(text: string): BundleSet {
  const domains = parseDocument(text)['trust_domains']
  if (!isJsonObject(domains)) throw refused('no-trust-domains', 'a bundle map has no object `trust_domains`')
  return bundleSet(
    Object.entries(domains).map(([name, document]) => {
      const trustDomain = parseTrustDomain(name)
      if (!isJsonObject(document)) throw refused('malformed', `the bundle of \`${trustDomain}\` in a bundle map is not an object`)
      const { refreshHint: _, ...bundle } = readBundle(trustDomain, document)
      return bundle
    }),
  )
}

function refused(what: string, text: string): Failure {
  return new Failure('invalid_argument', `bundle.${what}`, { public: text })
}
