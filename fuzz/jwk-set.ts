import { base64 } from '../src/kernel/bytes.ts'
import { formatJwtKeySet, formatWitKeySet, parseKeySet } from '../src/spiffe/bundle-document.ts'
import { parseTrustDomain } from '../src/spiffe/trust-domain.ts'
import { jsonWords, sampleBundle } from './sample-bundle.ts'
import { bytes, promise, type Target, text } from './target.ts'

export const jwkSet: Target = {
  name: 'jwk-set',
  about: 'the key sets of the Workload API',
  words: jsonWords,
  async seeds() {
    const bundle = await sampleBundle()
    return [formatJwtKeySet(bundle), formatWitKeySet(bundle), '{"keys":[]}'].map(bytes)
  },
  feed(input) {
    const authorities = parseKeySet('jwt-svid', text(input))
    const empty = { x509Authorities: [], witAuthorities: [], sequence: 0n }
    const again = parseKeySet('jwt-svid', formatJwtKeySet({ ...empty, trustDomain, jwtAuthorities: authorities }))
    const told = (list: typeof authorities) => list.map(({ keyId, publicKey }) => `${keyId}=${base64(publicKey)}`).join()
    promise(told(again) === told(authorities), 'a key set is read as it is written')
  },
}

const trustDomain = parseTrustDomain('example.org')
