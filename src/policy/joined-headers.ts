/** Headers of which Envoy keeps one: sent twice, they reach its filters, and through them us, as one value with commas. */

/** True for such a header; the name is in lower case. */
export const isJoinedByEnvoy = (name: string): boolean => joined.has(name) || name.startsWith('x-envoy-')

/** Of the values of such a header those that Envoy joins: an empty one adds nothing. */
export function leftByEnvoy(values: readonly string[]): readonly string[] {
  const said = values.filter((value) => value !== '')
  return said.length > 0 ? said : values.slice(0, 1)
}

/** Of an `authorization` header, in full: after a comma stands neither `name=` nor the rest of such a list, so there were two. */
export const repeatedAuthorization = String.raw`.*,[ \t]*[^ \t=,]+(?:[ \t]+[^ \t=].*|,.*)?`

/** True for the text of one `authorization` header that {@link repeatedAuthorization} takes for two. Two that read as one, `Digest a="b"` and `c="d"`, are not found. */
export const isRepeatedAuthorization = (text: string): boolean => twoAuthorizations.test(text)
const twoAuthorizations = new RegExp(`^(?:${repeatedAuthorization})$`, 's')

/** The request headers that Envoy 1.40 registers as single ones. */
const joined: ReadonlySet<string> = new Set(
  `accept accept-encoding access-control-request-headers access-control-request-method access-control-request-private-network authentication
  authorization cache-control cdn-loop connection content-encoding content-length content-type expect grpc-accept-encoding grpc-timeout if-match
  if-modified-since if-none-match if-range if-unmodified-since keep-alive origin pragma proxy-connection proxy-status referer te transfer-encoding
  upgrade user-agent via x-client-trace-id x-forwarded-client-cert x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-request-id`.split(
    /\s+/,
  ),
)
