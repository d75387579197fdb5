import { Failure } from '../kernel/failure.ts'
import type { CallMetadata, Wrap } from '../rpc/handler.ts'

/**
 * No answer without `workload.spiffe.io: true`, exactly once: what a browser or a proxy that was tricked into calling cannot send
 * (SPIFFE Workload Endpoint sections 3 and 6; EP-4, EP-5). Other services on the socket have rules of their own.
 */
export const requireSecurityHeader: Wrap<unknown> = (call, next) => {
  if (!call.method.startsWith(guarded) || isPresent(call.metadata)) return next()
  throw new Failure('invalid_argument', 'workload-api.security-header', {
    public: 'security header missing from request: expected exactly one `workload.spiffe.io: true`',
  })
}

function isPresent(metadata: CallMetadata): boolean {
  const values = metadata.get('workload.spiffe.io')
  return values?.length === 1 && values[0] === 'true'
}

const guarded = '/SpiffeWorkloadAPI/'
