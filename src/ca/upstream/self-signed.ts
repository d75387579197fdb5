import { z } from 'zod'
import { upstreamAuthority } from '../upstream-authority.ts'

/** Nobody above us: each of our authorities is a root of its own, announced through the bundle before it signs. */
export const selfSigned = upstreamAuthority({
  kind: 'self-signed',
  config: z.strictObject({}),
  example: {},

  async open() {
    return {
      async mint(request) {
        const root = await request.certify()
        return { chain: [root], roots: [root], warnings: [] }
      },
      async [Symbol.asyncDispose]() {},
    }
  },
})
