/** What `import … from 'vidimus'` gives a service written in Node. The only module of the package that others may import. */
export { openAuthorizer, guarded, type Authorizer } from './authorize.ts'
export { openJwtSource, openX509Source, type JwtSource, type SourceOptions, type X509Source } from './source.ts'
export { mtlsAgent, peerOf, serveMtls, tlsClientOptions, tlsServerOptions, type MtlsAgentOptions, type MtlsOptions } from './tls.ts'
export type { JwtSvid, ValidatedJwtSvid, X509Context, X509Identity } from './client.ts'
export { anyVerified, exactly, memberOf, type PeerMatcher } from '../spiffe/matcher.ts'
export { parseSpiffeId, type SpiffeId } from '../spiffe/id.ts'
export { parseTrustDomain, type TrustDomain } from '../spiffe/trust-domain.ts'
export { Failure } from '../kernel/failure.ts'
