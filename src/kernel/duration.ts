import { Failure } from './failure.ts'

/** A span of time in milliseconds. */
export type Duration = number

export const milliseconds = (count: number): Duration => count
export const seconds = (count: number): Duration => count * 1000
export const minutes = (count: number): Duration => count * 60_000
export const hours = (count: number): Duration => count * 3_600_000
export const days = (count: number): Duration => count * 86_400_000

/**
 * Reads a duration as people write it: `20s`, `1h30m`, `250ms`, `7d`.
 * Units go from large to small, each at most once; a bare number is refused because its unit is a guess.
 * @throws Failure `duration.malformed`
 */
export function parseDuration(text: string): Duration {
  const parts = durationPattern.exec(text)
  if (!parts || text === '') {
    throw new Failure('invalid_argument', 'duration.malformed', {
      public: `\`${text.slice(0, 64)}\` is not a duration: expected for example \`90s\`, \`1h30m\` or \`7d\``,
    })
  }
  const [d, h, m, s, ms] = parts.slice(1).map((part) => Number(part ?? 0)) as [number, number, number, number, number]
  const total = days(d) + hours(h) + minutes(m) + seconds(s) + ms
  if (total > maxDuration) {
    throw new Failure('invalid_argument', 'duration.too-long', {
      public: `\`${text.slice(0, 64)}\` is too long for a duration: at most 100 years`,
    })
  }
  return total
}

/** Writes a duration so that {@link parseDuration} reads the same value back. */
export function formatDuration(duration: Duration): string {
  if (duration < 1) return '0s'
  let rest = Math.round(duration)
  let text = ''
  for (const [unit, size] of units) {
    const count = Math.floor(rest / size)
    if (count > 0) text += `${count}${unit}`
    rest -= count * size
  }
  return text
}

const units = [
  ['d', days(1)],
  ['h', hours(1)],
  ['m', minutes(1)],
  ['s', seconds(1)],
  ['ms', 1],
] as const

/** What {@link parseDuration} reads, but for the empty text and more than 100 years. */
export const durationPattern = /^(?:(\d{1,6})d)?(?:(\d{1,8})h)?(?:(\d{1,9})m)?(?:(\d{1,10})s)?(?:(\d{1,12})ms)?$/
const maxDuration = days(36_525)
