import type { Instant } from '../kernel/clock.ts'

/**
 * Reads a moment: a date, which means its first moment in UTC, or an RFC 3339 time with its offset. Undefined for anything else.
 * Written out, because this room has no clock and what the platform's parser accepts differs.
 */
export function parseInstant(text: string): Instant | undefined {
  const parts = moment.exec(text)
  if (!parts) return undefined
  const [year, month, day, hour, minute, second] = parts.slice(1, 7).map((part) => Number(part ?? 0)) as [number, number, number, number, number, number]
  if (month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || hour > 23 || minute > 59 || second > 59) return undefined
  const offset = offsetMinutes(parts[7])
  if (offset === undefined) return undefined
  return ((daysSinceEpoch(year, month, day) * 24 + hour) * 60 + minute - offset) * 60_000 + second * 1000
}

function offsetMinutes(text: string | undefined): number | undefined {
  if (text === undefined || text === 'Z') return 0
  const [hours, minutes] = text.slice(1).split(':').map(Number) as [number, number]
  if (hours > 23 || minutes > 59) return undefined
  return (text.startsWith('-') ? -1 : 1) * (hours * 60 + minutes)
}

/** Days of the proleptic Gregorian calendar since 1970-01-01. */
function daysSinceEpoch(year: number, month: number, day: number): number {
  const before = year - 1
  const leapDays = Math.floor(before / 4) - Math.floor(before / 100) + Math.floor(before / 400)
  let days = before * 365 + leapDays + day - 1 - daysBeforeEpoch
  for (let at = 1; at < month; at++) days += daysIn(year, at)
  return days
}

function daysIn(year: number, month: number): number {
  if (month === 2) return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31
}

/** From 0001-01-01 to 1970-01-01. */
const daysBeforeEpoch = 719_162
const moment = /^(\d{4})-(\d{2})-(\d{2})(?:T(\d{2}):(\d{2}):(\d{2})(?:\.\d{1,9})?(Z|[+-]\d{2}:\d{2}))?$/
