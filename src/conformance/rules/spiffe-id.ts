/** SPIFFE ID: spiffe:standards/SPIFFE-ID.md. */
import { keysIn } from '../documents.ts'
import { brokenPath } from '../judging.ts'
import { finding, type Finding, type Rule, section, told, type Unseen } from '../rule.ts'
import { spelled, stranger, type Variant } from '../vectors/spiffe-ids.ts'
import { algorithms, signatureHolds, signedByStranger } from '../vectors/tokens.ts'
import { isEnded, status, tellStatus, type WorkloadApi } from '../workload-api.ts'

export const spiffeIdRules: readonly Rule[] = section({
  'ID-1': {
    level: 'must',
    says: 'the scheme is `spiffe`',
    judges: { id: (id) => (/^spiffe:\/\//i.test(id) ? undefined : finding('`spiffe://` at the beginning', id)) },
    asks: refuses(spelled.otherScheme),
  },
  'ID-2': {
    level: 'must',
    says: 'the trust domain has a name',
    judges: { id: (id) => (/^\w+:\/\/\//.test(id) ? finding('a trust domain before the path', id) : undefined) },
    asks: refuses(spelled.withoutTrustDomain),
  },
  'ID-3': {
    level: 'must',
    says: 'there is no query, not even an empty one',
    judges: { id: (id) => (/^[^#]*\?/.test(id) ? finding('no `?`', id) : undefined) },
    asks: refuses(spelled.withQuery),
  },
  'ID-4': {
    level: 'must',
    says: 'there is no fragment, not even an empty one',
    judges: { id: (id) => (id.includes('#') ? finding('no `#`', id) : undefined) },
    asks: refuses(spelled.withFragment),
  },
  'ID-5': {
    level: 'must',
    says: 'the host is not empty',
    judges: { id: (id) => (/^\w+:\/\/$/.test(id) ? finding('a host', id) : undefined) },
    asks: refuses(spelled.withoutHost),
  },
  'ID-6': {
    level: 'must',
    says: 'there is no user before the host, not even an empty one',
    judges: { id: (id) => (authority(id).includes('@') ? finding('no `@`', id) : undefined) },
    asks: refuses(spelled.withUser),
  },
  'ID-7': {
    level: 'must',
    says: 'there is no port after the host, not even an empty one',
    judges: { id: (id) => (/:\d*$/.test(authority(id)) ? finding('no port', id) : undefined) },
    asks: refuses(spelled.withPort),
  },
  'ID-8': {
    level: 'must',
    says: 'the trust domain is in lower case',
    judges: { id: (id) => (/[A-Z]/.test(host(id)) ? finding('a trust domain in lower case', id) : undefined) },
    asks: refuses(spelled.withCapitalHost),
  },
  'ID-9': {
    level: 'must',
    says: 'the trust domain has only letters, digits, `.`, `-` and `_`',
    judges: {
      id: (id) => (/[^a-zA-Z0-9._%-]/.test(host(id)) ? finding('only `a-z`, `0-9`, `.`, `-` and `_` in the trust domain', id) : undefined),
    },
    asks: refuses(spelled.withLookAlikeHost),
  },
  'ID-10': {
    level: 'must',
    says: 'the trust domain is not percent-encoded',
    judges: { id: (id) => (host(id).includes('%') ? finding('no `%` in the trust domain', id) : undefined) },
    asks: refuses(spelled.withEncodedHost),
  },
  'ID-11': {
    level: 'must',
    says: 'a trust domain that looks like an IP address is a name like any other',
    asks: async (api) => {
      // Whoever has no identity is denied everything, and learns nothing by that.
      await api.ownId()
      const [named, dotted] = [await api.jwtFor(stranger.named), await api.jwtFor(stranger.dotted)]
      if (!isEnded(named) || !isEnded(dotted)) return undefined
      return named.status === dotted.status
        ? undefined
        : finding(`${tellStatus(named)}, as for \`${stranger.named}\``, `${tellStatus(dotted)} for \`${stranger.dotted}\``)
    },
  },
  'ID-12': {
    level: 'must',
    says: 'the path is not percent-encoded',
    judges: { id: (id) => (path(id).includes('%') ? finding('no `%` in the path', id) : undefined) },
    asks: refuses(spelled.withEncodedPath),
  },
  'ID-13': {
    level: 'must',
    says: 'the path has no empty segment, and none that is `.` or `..`',
    judges: {
      id: (id) => (/\/(?:\.{0,2})\/|\/\.{1,2}$/.test(path(id)) ? finding('no segment that is empty, `.` or `..`', id) : undefined),
    },
    asks: refuses(spelled.withDotSegments),
  },
  'ID-14': {
    level: 'must',
    says: 'the path does not end with a slash',
    judges: { id: (id) => (/[^/]\/$|^\/$/.test(path(id)) ? finding('no slash at the end', id) : undefined) },
    asks: refuses(spelled.withTrailingSlash),
  },
  'ID-15': {
    level: 'must',
    says: 'a segment of the path has only letters, digits, `.`, `-` and `_`',
    judges: {
      id: (id) => (/[^a-zA-Z0-9._%/-]/.test(path(id)) ? finding('only letters, digits, `.`, `-` and `_` in the path', id) : undefined),
    },
    asks: refuses(spelled.withOtherCharacters),
  },
  'ID-16': {
    level: 'must',
    says: 'IDs of up to 2048 bytes are accepted',
    asks: async (api) => {
      const longest = stranger.longest(await api.ownId())
      const answer = await api.jwtFor(longest)
      return isEnded(answer) && answer.status === status.invalidArgument
        ? finding('2048 bytes of SPIFFE ID are read, and denied to whoever does not hold it', tellStatus(answer))
        : undefined
    },
  },
  'ID-17': {
    level: 'should',
    says: 'no ID is longer than 2048 bytes',
    judges: { id: (id) => (Buffer.byteLength(id) > 2048 ? finding('at most 2048 bytes', `${Buffer.byteLength(id)} bytes`) : undefined) },
  },
  'ID-18': {
    level: 'derived',
    says: 'the name of a trust domain has at most 255 bytes',
    judges: {
      id: (id) =>
        Buffer.byteLength(host(id)) > 255
          ? finding('at most 255 bytes of trust domain', `${Buffer.byteLength(host(id))} bytes`)
          : undefined,
    },
  },
  'ID-19': {
    level: 'must',
    says: 'capitals are never folded: the scheme is in lower case, and paths that differ in case differ',
    judges: { id: (id) => (/^spiffe:/i.test(id) && !id.startsWith('spiffe:') ? finding('`spiffe` in lower case', id) : undefined) },
    asks: refuses(spelled.withCapitals),
  },
  'ID-20': {
    level: 'must',
    says: 'a trust domain has a signing authority that carries an SVID itself',
    unseen: 'X-6 asks it of every signing certificate',
  },
  'ID-21': {
    level: 'should',
    says: 'the ID of the authority is in its own trust domain and has no path',
    unseen: 'X-7 and X-8 ask it of every signing certificate',
  },
  'ID-22': {
    level: 'must',
    says: 'the SPIFFE ID is inside of what was signed',
    asks: async (api) => {
      for (const { leaf, announced } of await announcedLeaves(api)) {
        const [uri] = leaf.subjectAltName?.uris ?? []
        if (uri !== undefined && uri !== announced) return finding(`\`${uri}\`, as the certificate says`, announced)
      }
      for (const kind of ['jwt', 'wit'] as const) {
        for (const { spiffeId, token } of await heldOrNone(api, kind)) {
          const sub = token.claims?.['sub']
          if (typeof sub === 'string' && sub.startsWith('spiffe:') && sub !== spiffeId)
            return finding(`\`${sub}\`, as the token says`, spiffeId)
        }
      }
      return undefined
    },
  },
  'ID-23': {
    level: 'must',
    says: 'an SVID is a document of a type that has a specification',
    unseen: 'every method of the Workload API is for one type, and the X, J and W rules say whether it is one',
  },
  'ID-24': {
    level: 'derived',
    says: 'an SVID is valid only if an authority of its own trust domain signed it',
    judges: {
      chain: (chain) =>
        brokenPath(chain, (reason) => reason === 'chain.no-path', 'a signature by an authority of the bundle that came with it'),
    },
    asks: async (api) => (await unsignedToken(api)) ?? acceptsStranger(api),
  },
})

/** No spelling of an ID that is held gets what the ID itself gets. */
function refuses(variants: (id: string) => readonly Variant[]): NonNullable<Rule['asks']> {
  return async (api) => {
    const own = await api.ownId()
    for (const asked of variants(own)) {
      const answer = await api.jwtFor(asked)
      if (!isEnded(answer) && answer.length > 0)
        return finding(`a refusal of \`${asked}\``, `a JWT-SVID for \`${answer[0]?.spiffeId ?? ''}\``)
    }
    return undefined
  }
}

async function announcedLeaves(api: WorkloadApi) {
  const [held, { leaf }] = await Promise.all([api.x509(), api.collected()])
  // Positions agree only where every certificate could be read.
  return held.length === leaf.length ? leaf.map((each, index) => ({ leaf: each, announced: held[index]!.spiffeId })) : []
}

/** A token that no key of the announced set signed. */
async function unsignedToken(api: WorkloadApi): Promise<Finding | undefined> {
  const { jwt, keySet } = await api.collected()
  const keys = keySet.flatMap(keysIn)
  const judged = jwt.filter(({ header }) => algorithms.has(told(header?.['alg'])))
  const stray = keys.length > 0 && judged.some((token) => !keys.some((key) => signatureHolds(token, key)))
  return stray ? finding('a signature by a key of FetchJWTBundles', 'a JWT-SVID that none of them signed') : undefined
}

async function acceptsStranger(api: WorkloadApi): Promise<Finding | Unseen | undefined> {
  const token = signedByStranger({ sub: await api.ownId(), aud: [api.audience], exp: inFiveMinutes(api) })
  const answer = await api.validate(token)
  return isEnded(answer) ? undefined : finding('a token that a stranger signed is refused', `it is valid for \`${answer.spiffeId}\``)
}

const inFiveMinutes = (api: WorkloadApi): number => Math.floor(api.clock.now() / 1000) + 300

async function heldOrNone(api: WorkloadApi, kind: 'jwt' | 'wit') {
  try {
    return await api.tokens(kind)
  } catch {
    return []
  }
}

const authority = (id: string): string => /^\w+:\/\/([^/?#]*)/.exec(id)?.[1] ?? ''
const host = (id: string): string => authority(id).replace(/^.*@/, '').replace(/:\d*$/, '')
const path = (id: string): string => /^\w+:\/\/[^/?#]*([^?#]*)/.exec(id)?.[1] ?? ''
