import { generateKeyPairSync } from 'node:crypto'
import { minutes } from '../src/kernel/duration.ts'
import { Failure } from '../src/kernel/failure.ts'
import { bundleSet } from '../src/spiffe/bundle-set.ts'
import { parseSpiffeId } from '../src/spiffe/id.ts'
import { jwtSvidFlaws, makeJwtSvid, verifyJwtSvid } from '../src/spiffe/jwt-svid.ts'
import { parseTrustDomain } from '../src/spiffe/trust-domain.ts'
import { makeWitSvid, verifyWitSvid, witSvidFlaws } from '../src/spiffe/wit-svid.ts'
import { signerOf } from '../src/x509/signature.ts'
import { bytes, promise, type Target, text } from './target.ts'

export const jwt: Target = {
  name: 'jwt',
  about: 'JWT-SVIDs and WIT-SVIDs, verified',
  words: ['.', '..', 'eyJ', b64('{"alg":"none"}'), b64('{"alg":"HS256","kid":"k"}'), '=', b64('{"typ":"wit+jwt"}')],
  async seeds() {
    const content = { spiffeId: parseSpiffeId('spiffe://example.org/web'), issuedAt: at, expiresAt: at + minutes(5), jti: 'one' }
    const made = await Promise.all([
      makeJwtSvid(signer, 'k', { ...content, audience: ['orders'] }),
      makeJwtSvid(signer, 'k', { ...content, audience: ['orders', 'payments'], issuer: 'https://example.org' }),
      makeWitSvid(signer, 'k', { ...content, proofKey: signer.publicKey }),
    ])
    for (const token of made) issued.add(token)
    return made.map(bytes)
  },
  async feed(input) {
    const token = text(input)
    // A signature is looked at only where nothing else is wrong: that is nearly never, and takes longest.
    const [jwtFlaws, witFlaws] = [jwtSvidFlaws(token, { at, audience: 'orders' }), witSvidFlaws(token, at)]
    promise(jwtFlaws.length > 0 || witFlaws.length > 0, 'no token is of both kinds (W-23)')
    for (const flaw of [...jwtFlaws, ...witFlaws]) promise(flaw instanceof Failure && flaw.reason.includes('-svid.'), 'a flaw is a refusal')
    if (jwtFlaws.length > 0 && witFlaws.length > 0) throw jwtFlaws[0]!
    await (jwtFlaws.length === 0 ? verifyJwtSvid(token, bundles, 'orders', at) : verifyWitSvid(token, bundles, at))
    promise(issued.has(token), 'only what was issued is accepted, letter by letter')
  },
}

function b64(content: string): string {
  return Buffer.from(content).toString('base64url')
}

const at = 1_767_225_600_000
const signer = signerOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
const issued = new Set<string>()
const authorities = [{ keyId: 'k', publicKey: signer.publicKey, tainted: false }]
const bundles = bundleSet([
  {
    trustDomain: parseTrustDomain('example.org'),
    x509Authorities: [],
    jwtAuthorities: authorities,
    witAuthorities: authorities,
    sequence: 1n,
  },
])
