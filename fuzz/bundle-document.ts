import { parseBundleDocument, formatBundleDocument, sameAuthorities, bundleDocumentFlaws } from '../src/spiffe/bundle-document.ts'
import { formatBundleMap, parseBundleMap } from '../src/spiffe/bundle-map.ts'
import { bundleSet } from '../src/spiffe/bundle-set.ts'
import { parseTrustDomain } from '../src/spiffe/trust-domain.ts'
import { jsonWords, sampleBundle } from './sample-bundle.ts'
import { bytes, promise, type Target, text } from './target.ts'

export const bundleDocument: Target = {
  name: 'bundle-document',
  about: 'SPIFFE bundle documents and bundle maps',
  words: jsonWords,
  async seeds() {
    const bundle = await sampleBundle()
    return [formatBundleDocument(bundle), formatBundleMap(bundleSet([bundle])), '{"keys":[]}'].map(bytes)
  },
  feed(input) {
    const document = text(input)
    if (document.includes('trust_domains')) {
      const set = parseBundleMap(document)
      for (const bundle of set.all()) {
        const again = parseBundleMap(formatBundleMap(set)).find(bundle.trustDomain)
        promise(again !== undefined && sameAuthorities(bundle, again), 'a bundle map is read as it is written')
      }
      return
    }
    const bundle = parseBundleDocument(trustDomain, document)
    const again = parseBundleDocument(trustDomain, formatBundleDocument(bundle))
    promise(sameAuthorities(bundle, again) && bundle.sequence === again.sequence, 'a bundle document is read as it is written')
    promise(Array.isArray(bundleDocumentFlaws(trustDomain, document)), 'a bundle document that can be read can be inspected')
  },
}

const trustDomain = parseTrustDomain('example.org')
