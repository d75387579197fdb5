/** Tokens, told and judged. */
import { bundleSet } from '../../spiffe/bundle-set.ts'
import { verifyJwtSvid } from '../../spiffe/jwt-svid.ts'
import { verifyWitSvid } from '../../spiffe/wit-svid.ts'
import { type Json, readToken, type Token, trustDomainIn } from '../documents.ts'
import { finding, told } from '../rule.ts'
import { audienceOf } from '../rules/jwt-svid.ts'
import { trustBundleFor } from './bundles.ts'
import { factsOf, type Flaw, flawAgainst, flawsOf, type Inspected, type Looking, refusalFlaw, tellInstant } from './inspection.ts'

export type TokenForm = 'jwt-svid' | 'wit-svid'

/** What a token says it is. */
export function formOfToken(text: string): TokenForm {
  return readToken(text, 0).header?.['typ'] === 'wit+jwt' ? 'wit-svid' : 'jwt-svid'
}

/** A token; with a trust bundle its signature is verified, with an audience that it is for it. The token itself is not told: whoever has it may use it. */
export async function inspectToken(text: string, form: TokenForm, looking: Looking): Promise<Inspected> {
  const token = readToken(text, looking.at)
  const { header, claims } = token
  const flaws = [...misformed(text, form), ...flawsOf(form === 'jwt-svid' ? 'jwt' : 'wit', token)]
  const sub = claims?.['sub']
  if (typeof sub === 'string' && /^spiffe:/i.test(sub)) flaws.push(...flawsOf('id', sub))
  if (form === 'jwt-svid') flaws.push(...wrongAudience(token, looking))
  const verified = looking.trustBundle === undefined ? undefined : await verification(token, form, looking, flaws)
  const name = form === 'jwt-svid' ? 'JWT-SVID' : 'WIT-SVID'
  return {
    kind: form,
    title: `a ${name}${typeof sub === 'string' ? ` of ${sub}` : ''}`,
    facts: factsOf([
      ['subject', sub === undefined ? undefined : told(sub)],
      ['audience', audienceOf(claims?.['aud']).join(', ')],
      ['issued at', tellTime(claims, 'iat')],
      ['valid from', tellTime(claims, 'nbf')],
      ['expires at', tellTime(claims, 'exp')],
      ['issuer', claims?.['iss'] === undefined ? undefined : told(claims['iss'])],
      ['algorithm', header?.['alg'] === undefined ? undefined : told(header['alg'])],
      ['key id', header?.['kid'] === undefined ? undefined : told(header['kid'])],
      ['type', header?.['typ'] === undefined ? undefined : told(header['typ'])],
      [
        'other claims',
        Object.keys(claims ?? {})
          .filter((claim) => !toldClaims.has(claim))
          .join(', '),
      ],
      ['verified', verified],
    ]),
    flaws,
  }
}

/** A JSON serialization, or something encrypted, has a rule of its own. */
function misformed(text: string, form: TokenForm): Flaw[] {
  if (form === 'wit-svid') return []
  if (text.startsWith('{')) return [flawAgainst('J-1', finding('compact serialization', 'the JSON serialization'))]
  return text.split('.').length === 5 ? [flawAgainst('J-3', finding('a signed token', 'an encrypted one'))] : []
}

function wrongAudience({ claims }: Token, { audience }: Looking): Flaw[] {
  const named = audienceOf(claims?.['aud'])
  if (audience === undefined || named.length === 0 || named.includes(audience)) return []
  return [flawAgainst('J-9', finding(`the audience \`${audience}\``, named.join(', ')))]
}

/** How it was verified, or undefined with the flaw added. */
async function verification(
  { text, claims, header }: Token,
  form: TokenForm,
  looking: Looking,
  flaws: Flaw[],
): Promise<string | undefined> {
  const bundles = bundleSet([trustBundleFor(trustDomainIn(told(claims?.['sub'] ?? '')), looking.trustBundle ?? '')])
  try {
    // Without an audience to compare, a token is held against its own first.
    const audience = looking.audience ?? audienceOf(claims?.['aud'])[0] ?? ''
    if (form === 'jwt-svid') await verifyJwtSvid(text, bundles, audience, looking.at)
    else await verifyWitSvid(text, bundles, looking.at)
    return `by the key ${told(header?.['kid'] ?? 'of its trust domain')}`
  } catch (error) {
    flaws.push(...refusalFlaw(error, flaws))
    return undefined
  }
}

function tellTime(claims: Json | undefined, name: string): string | undefined {
  const value = claims?.[name]
  if (value === undefined) return undefined
  return typeof value === 'number' ? tellInstant(value * 1000) : told(value)
}

const toldClaims = new Set(['sub', 'aud', 'iat', 'nbf', 'exp', 'iss'])
