/** What a registration entry adds to its SVIDs, and what the profile lets it add. */
import { Failure } from '../kernel/failure.ts'
import type { Additions } from './certificate-authority.ts'
import type { IssuanceProfile } from './profile.ts'

/** @throws Failure `ca.subject-not-allowed`, `ca.claim-not-allowed` */
export function demandAdditions({ subject = {}, claims = {} }: Additions, { additions }: Pick<IssuanceProfile, 'additions'>): void {
  demandEach('subject', Object.keys(subject), additions.subject)
  demandEach('claim', Object.keys(claims), additions.claims)
}

function demandEach(what: 'subject' | 'claim', names: readonly string[], allowed: ReadonlySet<string>): void {
  const stranger = names.find((name) => !allowed.has(name))
  if (stranger === undefined) return
  const field = what === 'subject' ? 'svid.additions.subject' : 'svid.additions.claims'
  throw new Failure('failed_precondition', `ca.${what}-not-allowed`, {
    public: `entries may not add \`${stranger.slice(0, 128)}\`: \`${field}\` of the server allows ${[...allowed].join(', ') || 'nothing'}`,
  })
}
