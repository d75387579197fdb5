import { expect, test } from 'vitest'
import { filterChain } from '../../src/authz/filter-chain.ts'
import type { PolicyMode } from '../../src/policy/policy-set.ts'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { compiled, orders, selectors } from '../policy/make.ts'

const facts = { ...orders, selectors: selectors('k8s:ns:shop', 'k8s:pod-label:app:orders') }
const peers = (mode: string, ports: object = {}) =>
  JSON.stringify({
    apiVersion: 'security.istio.io/v1',
    kind: 'PeerAuthentication',
    metadata: { name: 'peers', namespace: 'shop' },
    spec: {
      mtls: { mode },
      ...(Object.keys(ports).length > 0 && { selector: { matchLabels: { app: 'orders' } }, portLevelMtls: ports }),
    },
  })
const notesOf = (text: string, mode: PolicyMode) =>
  filterChain(compiled([text], { mode }, facts), {
    trustDomains: [parseTrustDomain('example.org')],
  }).notes.filter((note) => note.includes('PeerAuthentication'))

test.each<PolicyMode>(['strict', 'istio'])('in %s mode what only a listener can do about mTLS is said, never dropped', (mode) => {
  expect(notesOf(peers('PERMISSIVE'), mode)).toEqual([])
  expect(notesOf(peers('STRICT'), mode)).toEqual([expect.stringContaining('ask for client certificates')])
  expect(notesOf(peers('DISABLE'), mode)).toEqual([expect.stringContaining('offer none')])
  expect(notesOf(peers('STRICT', { 80: { mode: 'DISABLE' } }), mode)).toHaveLength(2)
})
