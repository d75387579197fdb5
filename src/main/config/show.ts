import { formatDuration } from '../../kernel/duration.ts'

/** A configuration as meant, in the form that it is written in: durations as text, drivers as their kind and settings. */
export function showConfig(config: object): object {
  return Object.fromEntries(Object.entries(config).map(([key, value]) => [key, shown(key, value)]))
}

function shown(key: string, value: unknown): unknown {
  if (typeof value === 'number' && !counts.has(key)) return formatDuration(value)
  if (Array.isArray(value)) return value.map((one) => shown(key, one))
  if (typeof value !== 'object' || value === null) return value
  if ('kind' in value && 'settings' in value) return { kind: value.kind, ...(value.settings as object) }
  return showConfig(value)
}

/** Numbers that are no durations. */
const counts = new Set(['port', 'hashSizeLimitBytes'])
