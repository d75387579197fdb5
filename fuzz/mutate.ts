/** Numbers that look like chance and are the same for the same seed (xorshift with 32 bits). */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0 || 1
  }

  /** A whole number from zero to below `limit`. */
  below(limit: number): number {
    this.#state ^= this.#state << 13
    this.#state ^= this.#state >>> 17
    this.#state ^= this.#state << 5
    return (this.#state >>> 0) % limit
  }

  one<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!
  }
}

/** An input with one to eight small changes, made in one of the ways that break readers. */
export function mutate(dice: Dice, input: Uint8Array, corpus: readonly Uint8Array[], words: readonly Uint8Array[]): Uint8Array {
  let changed = input
  for (let left = 1 + dice.below(8) * dice.below(2); left > 0; left--) changed = dice.one(changes)(dice, changed, corpus, words)
  return changed.length > maxLength ? changed.subarray(0, maxLength) : changed
}

type Change = (dice: Dice, input: Uint8Array, corpus: readonly Uint8Array[], words: readonly Uint8Array[]) => Uint8Array

const changes: readonly Change[] = [
  // One bit, one byte, one byte that means something.
  (dice, input) => withByte(dice, input, (byte) => byte ^ (1 << dice.below(8))),
  (dice, input) => withByte(dice, input, () => dice.below(256)),
  (dice, input) => withByte(dice, input, () => dice.one(telling)),
  (dice, input) => withByte(dice, input, (byte) => byte + (dice.below(2) === 0 ? 1 : -1)),
  // Less, more, twice, and somewhere else.
  (dice, input) => input.subarray(0, dice.below(input.length + 1)),
  (dice, input) => spliced(input, stretch(dice, input), new Uint8Array()),
  (dice, input) =>
    spliced(
      input,
      at(dice, input),
      Uint8Array.from({ length: 1 + dice.below(8) }, () => dice.below(256)),
    ),
  (dice, input) => spliced(input, at(dice, input), part(dice, input)),
  (dice, input) => spliced(input, at(dice, input), new Uint8Array(1 + dice.below(200)).fill(dice.one(telling))),
  // What other inputs have there, and the words of the format.
  (dice, input, corpus) => spliced(input, stretch(dice, input), part(dice, dice.one(corpus))),
  (dice, input, corpus) => spliced(input, [dice.below(input.length + 1), input.length], part(dice, dice.one(corpus))),
  (dice, input, _, words) => (words.length === 0 ? input : spliced(input, at(dice, input), dice.one(words))),
  (dice, input, _, words) => (words.length === 0 ? input : spliced(input, stretch(dice, input), dice.one(words))),
]

type Stretch = readonly [from: number, to: number]

function at(dice: Dice, input: Uint8Array): Stretch {
  const place = dice.below(input.length + 1)
  return [place, place]
}

function stretch(dice: Dice, input: Uint8Array): Stretch {
  const from = dice.below(input.length + 1)
  return [from, Math.min(input.length, from + dice.below(32))]
}

function part(dice: Dice, input: Uint8Array): Uint8Array {
  const from = dice.below(input.length + 1)
  return input.subarray(from, from + dice.below(64))
}

function withByte(dice: Dice, input: Uint8Array, change: (byte: number) => number): Uint8Array {
  if (input.length === 0) return input
  const copy = Uint8Array.from(input)
  const place = dice.below(copy.length)
  copy[place] = change(copy[place]!) & 0xff
  return copy
}

function spliced(input: Uint8Array, [from, to]: Stretch, middle: Uint8Array): Uint8Array {
  return Buffer.concat([input.subarray(0, from), middle, input.subarray(to)])
}

/** Ends of ranges, long and indefinite lengths, and what separates things in texts. */
const telling = [0x00, 0x01, 0x7f, 0x80, 0x81, 0x84, 0xff, 0x30, 0x31, 0xa0, 0x22, 0x5b, 0x5c, 0x7b, 0x2e, 0x2f, 0x25, 0x0a]
const maxLength = 64 * 1024
