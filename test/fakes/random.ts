import { createHash } from 'node:crypto'
import type { Random } from '../../src/kernel/random.ts'

/** The same bytes in the same order for the same seed, well spread. */
export function seededRandom(seed: number | string): Random {
  let counter = 0
  let left: Buffer = Buffer.alloc(0)
  return {
    bytes(count) {
      const blocks = [left]
      for (let held = left.length; held < count; held += 32) blocks.push(createHash('sha256').update(`${seed}:${counter++}`).digest())
      const all = Buffer.concat(blocks)
      left = all.subarray(count)
      return Uint8Array.from(all.subarray(0, count))
    },
  }
}
