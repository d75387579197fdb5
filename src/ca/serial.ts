/** Serial numbers of certificates: RFC 5280 section 4.1.2.2, rule C-1. */
import { hex } from '../kernel/bytes.ts'
import { Failure } from '../kernel/failure.ts'
import type { Random } from '../kernel/random.ts'

/**
 * Draws serial numbers: 16 octets, positive, with 126 random bits. A source of chance that repeats itself is found out
 * among the latest few thousand, and nothing is issued from it.
 */
export class Serials {
  readonly #random: Random
  readonly #latest = new Set<string>()
  /** Drawn ahead: a serial number need not be secret, and asking for many at once costs as much as asking for one. */
  #ahead: Uint8Array = new Uint8Array()

  constructor(random: Random) {
    this.#random = random
  }

  /** @throws Failure `ca.serial-repeated` */
  next(): Uint8Array {
    if (this.#ahead.length === 0) this.#ahead = Uint8Array.from(this.#random.bytes(serialBytes * drawnAtOnce))
    const serial = this.#ahead.slice(0, serialBytes)
    this.#ahead = this.#ahead.subarray(serialBytes)
    // A first octet from 0x40 to 0x7f: no sign bit, and no leading zero to be cut off.
    serial[0] = 0x40 | (serial[0]! & 0x3f)
    const text = hex(serial)
    if (this.#latest.has(text)) {
      throw new Failure('internal', 'ca.serial-repeated', {
        public: 'internal error',
        internal: { serial: text, problem: 'the random source repeats itself' },
      })
    }
    if (this.#latest.size >= remembered) this.#latest.delete(this.#latest.values().next().value!)
    this.#latest.add(text)
    return serial
  }
}

const serialBytes = 16
const drawnAtOnce = 256
const remembered = 4096
