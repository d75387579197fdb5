/** Rules for clients of the Workload API, held by ours, where the tests of its room do not say so already. */
import { expect, test, vi } from 'vitest'
import { parseTrustDomain } from '../../src/spiffe/trust-domain.ts'
import { openX509Source } from '../../src/workload-client/source.ts'
import { FakeClock } from '../fakes/clock.ts'
import { TestCa } from '../support/test-ca.ts'
import { bundleOf, FakeAgent, svidOf } from '../workload-client/fake-agent.ts'

const foreign = parseTrustDomain('other.example')

test('EP-4 EP-6 API-8 it sends the header that is asked for, without TLS, and lets go of a bundle that is not there any more', async () => {
  const clock = new FakeClock()
  const ca = await TestCa.create({ at: clock.now() })
  const other = await TestCa.create({ at: clock.now(), trustDomain: foreign })
  const svids = [svidOf(ca, await ca.leaf())]
  // The fake agent answers nobody without the header.
  await using agent = await FakeAgent.start()
  agent.x509.set({ svids, federatedBundles: { [`spiffe://${foreign}`]: bundleOf(other) } })
  await using source = await openX509Source({ address: agent.address, clock })
  expect(source.context.current?.bundles.find(foreign)).toBeDefined()
  agent.x509.set({ svids })
  await vi.waitFor(() => expect(source.context.current?.bundles.find(foreign)).toBeUndefined())
})
