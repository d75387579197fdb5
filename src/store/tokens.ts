/** Join tokens, in a table. */
import { Failure } from '../kernel/failure.ts'
import type { JoinToken, TokenStore } from '../registry/join-token.ts'
import type { Writes } from './writes.ts'

export function tokenTable(writes: Writes): TokenStore {
  return {
    create: (token) =>
      writes.run(async (tx) => {
        const { numInsertedOrUpdatedRows } = await tx
          .insertInto('join_tokens')
          .values({ digest: token.digest, expires_at: token.expiresAt })
          .onConflict((conflict) => conflict.doNothing())
          .executeTakeFirstOrThrow()
        if (numInsertedOrUpdatedRows !== 1n)
          throw new Failure('already_exists', 'join-token.exists', { public: 'this join token exists already' })
      }),
    // One statement: whoever's delete finds the row has the token.
    consume: (digest) =>
      writes.run(async (tx) => {
        const row = await tx.deleteFrom('join_tokens').where('digest', '=', digest).returningAll().executeTakeFirst()
        return row && ({ digest: row.digest, expiresAt: row.expires_at } satisfies JoinToken)
      }),
    prune: (at) =>
      writes.run(async (tx) => {
        const { numDeletedRows } = await tx.deleteFrom('join_tokens').where('expires_at', '<', at).executeTakeFirstOrThrow()
        return Number(numDeletedRows)
      }),
  }
}
