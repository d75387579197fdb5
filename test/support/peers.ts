import { describe, test } from 'vitest'
import { type FoundPeer, peer } from '../../tools/peers/find.ts'
import type { PeerName } from '../../tools/peers/table.ts'

declare module 'vitest' {
  interface TaskMeta {
    /** Why a test is skipped; the closing reporter prints it. */
    skipReason?: string
  }
}

/**
 * Tests that need a real counterpart. Where it is missing they are skipped by name, with the reason and the command that provides it;
 * with `VIDIMUS_REQUIRE_PEERS=1` that is a failure instead.
 * The body registers its tests in either case: it may start the peer only within tests and hooks.
 */
export function describeWithPeer(name: PeerName, what: string, body: (found: FoundPeer) => void): void {
  const found = peer(name)
  if ('path' in found) {
    describe(what, () => body(found))
    return
  }
  const reason = `${found.missing}: run \`${found.command}\``
  if (process.env['VIDIMUS_REQUIRE_PEERS'] === '1') {
    describe(what, () => {
      test(`needs ${name}`, () => {
        throw new Error(`${reason} (VIDIMUS_REQUIRE_PEERS=1 makes a missing peer a failure)`)
      })
    })
    return
  }
  describeSkipped(what, reason, () => body({ path: '' }))
}

/** Tests that this machine cannot run: skipped by name, with the reason. */
export const describeSkipped = (what: string, skipReason: string, body: () => void): void =>
  void describe.skip(what, { meta: { skipReason } }, body)
