import { Failure } from '../kernel/failure.ts'

/**
 * The rules that a refusal keeps, by id, most specific first: those of its reason code and of everything that caused it.
 * None for what no rule speaks of.
 */
export function brokenRules(refusal: unknown): string[] {
  const found: string[] = []
  for (let at = refusal, depth = 0; at instanceof Error && depth < maxCauses; at = at.cause, depth++) {
    if (at instanceof Failure) found.push(...rulesOf(at.reason))
  }
  return [...new Set(found)]
}

/** The rules behind a reason code: its own row, else that of its room (`der.*`). */
export function rulesOf(reason: string): readonly string[] {
  return rows.get(reason) ?? rows.get(`${reason.slice(0, reason.indexOf('.'))}.*`) ?? []
}

/** One row a reason code of the documents that SPIFFE defines. The rules are those of `docs/rules/`. */
const rows: ReadonlyMap<string, readonly string[]> = new Map([
  ['spiffe-id.too-long', ['ID-16', 'ID-17']],
  ['spiffe-id.scheme', ['ID-1', 'X-24']],
  ['spiffe-id.no-trust-domain', ['ID-2', 'ID-5']],
  ['spiffe-id.trust-domain-too-long', ['ID-18']],
  ['spiffe-id.trust-domain-case', ['ID-8', 'ID-19']],
  ['spiffe-id.trust-domain-percent', ['ID-10']],
  ['spiffe-id.trust-domain-character', ['ID-9', 'ID-11']],
  ['spiffe-id.user-info', ['ID-6']],
  ['spiffe-id.port', ['ID-7']],
  ['spiffe-id.query', ['ID-3']],
  ['spiffe-id.fragment', ['ID-4']],
  ['spiffe-id.trailing-slash', ['ID-14']],
  ['spiffe-id.empty-segment', ['ID-13']],
  ['spiffe-id.dot-segment', ['ID-13']],
  ['spiffe-id.path-percent', ['ID-12']],
  ['spiffe-id.path-character', ['ID-15']],
  ['trust-domain.empty', ['ID-2']],
  ['trust-domain.too-long', ['ID-18']],
  ['trust-domain.bad-character', ['ID-9']],

  ['x509-svid.empty-chain', ['R-12']],
  ['x509-svid.uri-count', ['X-1', 'X-2']],
  ['x509-svid.no-path', ['X-4', 'X-25']],
  ['x509-svid.san-not-critical', ['X-5']],
  ['x509-svid.not-a-leaf', ['X-12', 'X-22', 'X-10']],
  ['x509-svid.no-key-usage', ['X-15']],
  ['x509-svid.may-sign', ['X-18', 'X-23']],
  ['x509-svid.may-not-authenticate', ['X-17']],
  ['x509-svid.extended-key-usage', ['X-20']],
  ['x509-svid.unknown-trust-domain', ['X-32', 'API-11', 'B-6', 'ID-24']],
  ['x509-svid.authority-not-a-ca', ['X-11']],
  ['x509-svid.authority-no-key-usage', ['X-15']],
  ['x509-svid.authority-may-not-sign', ['X-16']],
  ['x509-svid.authority-uri-count', ['X-1', 'X-6']],
  ['x509-svid.authority-path', ['X-7', 'ID-21']],
  ['x509-svid.authority-trust-domain', ['X-8', 'ID-21']],

  ['chain.*', ['X-21']],
  ['chain.not-a-ca', ['X-11', 'X-21', 'R-13']],
  ['chain.may-not-sign', ['X-16', 'X-21', 'R-13']],
  ['chain.path-too-long', ['X-13', 'X-21', 'R-13']],
  ['chain.name-constraint', ['X-14', 'X-21', 'R-44']],
  ['chain.no-path', ['ID-24', 'X-21', 'R-5']],
  ['chain.too-many-certificates', ['R-28', 'R-29']],
  ['x509.*', ['X-21']],
  ['x509.weak-key', ['R-4', 'R-29']],
  ['der.*', ['X-21']],
  ['der.too-deep', ['R-28']],
  ['der.too-long', ['R-28']],

  ['jwt-svid.too-long', ['R-17']],
  ['jwt-svid.malformed', ['J-1', 'J-2']],
  ['jwt-svid.encrypted', ['J-3']],
  ['jwt-svid.header', ['J-4']],
  ['jwt-svid.algorithm', ['J-5', 'R-17']],
  ['jwt-svid.key-id', ['J-6']],
  ['jwt-svid.type', ['J-7', 'W-23']],
  ['jwt-svid.subject', ['J-8']],
  ['jwt-svid.no-audience', ['J-9', 'J-12']],
  ['jwt-svid.wrong-audience', ['J-9']],
  ['jwt-svid.no-expiry', ['J-11']],
  ['jwt-svid.expired', ['J-12']],
  ['jwt-svid.not-yet-valid', ['J-12']],
  ['jwt-svid.unknown-trust-domain', ['API-22', 'J-17', 'ID-24']],
  ['jwt-svid.unknown-key', ['J-17', 'ID-24']],
  ['jwt-svid.signature', ['ID-24', 'R-17']],

  ['wit-svid.too-long', ['R-17']],
  ['wit-svid.malformed', ['R-17']],
  ['wit-svid.encrypted', ['R-17']],
  ['wit-svid.key-id', ['W-1']],
  ['wit-svid.type', ['W-2', 'W-23']],
  ['wit-svid.algorithm', ['W-3']],
  ['wit-svid.critical', ['W-4']],
  ['wit-svid.subject', ['W-5']],
  ['wit-svid.proof-key', ['W-6', 'W-7']],
  ['wit-svid.no-expiry', ['W-9']],
  ['wit-svid.expired', ['W-9']],
  ['wit-svid.not-yet-valid', ['W-10']],
  ['wit-svid.audience', ['W-13']],
  ['wit-svid.unknown-trust-domain', ['W-20', 'ID-24']],
  ['wit-svid.unknown-key', ['W-1', 'W-20', 'ID-24']],
  ['wit-svid.signature', ['ID-24']],
  ['wit-proof.*', ['W-16', 'W-17', 'W-18']],
  ['wit-proof.signature', ['W-16']],
  ['wit-proof.other-token', ['W-17']],
  ['wit-proof.wrong-audience', ['W-17']],
  ['wit-proof.no-expiry', ['W-21']],
  ['wit-proof.expired', ['W-21']],
  ['wit-proof.too-lasting', ['W-21']],

  ['bundle.malformed', ['B-1']],
  ['bundle.empty', ['B-6']],
  ['bundle.no-keys', ['B-4']],
  ['bundle.no-trust-domains', ['B-10']],
  ['bundle.too-many-keys', ['R-28']],
  ['bundle.sequence', ['B-2']],
  ['bundle.refresh-hint', ['B-3']],
  ['bundle.no-key-type', ['B-8']],
  ['bundle.no-use', ['B-9', 'X-26', 'J-15']],
  ['bundle.certificate', ['X-28']],
  ['bundle.certificate-count', ['X-28']],
  ['bundle.certificate-key-id', ['X-27']],
  ['bundle.not-self-signed', ['X-29']],
  ['bundle.other-key', ['X-28']],
  ['bundle.no-key-id', ['J-16', 'W-19']],
  ['bundle.key-id-twice', ['W-19']],
  ['bundle.key', ['B-1']],
  ['jwk.*', ['B-1']],
  ['json.*', ['B-1']],
  ['json.duplicate-name', ['B-11']],
  ['json.too-deep', ['R-28']],
  ['json.too-many-members', ['R-28', 'R-31']],
  ['json.too-long', ['R-28']],
])

/** Refusals are wrapped twice at most. */
const maxCauses = 8
