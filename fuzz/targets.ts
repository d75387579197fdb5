import { any } from './any.ts'
import { bundleDocument } from './bundle-document.ts'
import { crl } from './crl.ts'
import { csr } from './csr.ts'
import { der } from './der.ts'
import { jwkSet } from './jwk-set.ts'
import { jwt } from './jwt.ts'
import { pem } from './pem.ts'
import { spiffeId } from './spiffe-id.ts'
import type { Target } from './target.ts'
import { workloadApiRequest } from './workload-api.ts'

export const targets: readonly Target[] = [spiffeId, der, csr, crl, pem, jwt, jwkSet, bundleDocument, any, workloadApiRequest]
