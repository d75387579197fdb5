/** Federation: spiffe:standards/SPIFFE_Federation.md. */
import { notBuilt } from '../reasons.ts'
import { type Rule, section } from '../rule.ts'

export const federationRules: readonly Rule[] = section({
  'F-1': { level: 'should', says: 'new keys are announced early, and always before they are used', notBuilt: notBuilt.federation },
  'F-2': { level: 'should', says: 'keys go when no SVID under them is left', notBuilt: notBuilt.federation },
  'F-3': { level: 'should', says: 'a bundle is fetched again after its refresh hint', notBuilt: notBuilt.federation },
  'F-4': { level: 'should', says: 'the latest bundle is kept: the one with the highest sequence', notBuilt: notBuilt.federation },
  'F-5': { level: 'must', says: 'bundles of different trust domains are never merged', notBuilt: notBuilt.federation },
  'F-6': { level: 'must', says: 'a client supports both profiles, a server at least one', notBuilt: notBuilt.federation },
  'F-7': { level: 'must', says: "TLS is as strict as Mozilla's intermediate settings", notBuilt: notBuilt.federation },
  'F-8': {
    level: 'must',
    says: 'a client is told address, profile and trust domain, and infers none of them',
    notBuilt: notBuilt.federation,
  },
  'F-9': { level: 'must', says: 'workloads are told which bundle belongs to which trust domain', notBuilt: notBuilt.federation },
  'F-10': { level: 'must', says: 'the address is https and has no user', notBuilt: notBuilt.federation },
  'F-11': { level: 'must', says: '`https_web` needs nothing more to be configured', notBuilt: notBuilt.federation },
  'F-12': { level: 'should', says: 'an `https_web` server has a public certificate for its name', notBuilt: notBuilt.federation },
  'F-13': { level: 'must', says: 'a bundle is served to whoever asks', notBuilt: notBuilt.federation },
  'F-14': { level: 'must', says: 'the newest bundle is served, in UTF-8', notBuilt: notBuilt.federation },
  'F-15': { level: 'may', says: 'a server may redirect, to a valid address', notBuilt: notBuilt.federation },
  'F-16': { level: 'must', says: "an `https_web` client validates the server's name", notBuilt: notBuilt.federation },
  'F-17': { level: 'must', says: 'a client knows the trust domain before it asks', notBuilt: notBuilt.federation },
  'F-18': {
    level: 'should',
    says: 'a client follows a redirect under the same rules, and begins anew at its configured address',
    notBuilt: notBuilt.federation,
  },
  'F-19': {
    level: 'must',
    says: "an `https_spiffe` client knows the server's SPIFFE ID, and has its bundle from a safe place",
    notBuilt: notBuilt.federation,
  },
  'F-20': { level: 'must', says: 'an `https_spiffe` server shows exactly the configured SPIFFE ID', notBuilt: notBuilt.federation },
  'F-21': { level: 'must', says: 'behind a redirect is the same SPIFFE ID', notBuilt: notBuilt.federation },
  'F-22': { level: 'should', says: 'a client that failed waits for the next turn', notBuilt: notBuilt.federation },
  'F-23': { level: 'derived', says: 'with the relationship goes the bundle, everywhere', notBuilt: notBuilt.federation },
  'F-24': { level: 'derived', says: 'every fetch of a bundle is logged', notBuilt: notBuilt.federation },
})
