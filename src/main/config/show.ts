import { formatDuration } from '../../kernel/duration.ts'

/** A configuration as meant, in the form that it is written in: durations as text, drivers as their kind and settings. */
export function showConfig(config: object): object {
  return Object.fromEntries(Object.entries(config).map(([key, value]) => [key, shown(key, value)]))
}

function shown(key: string, value: unknown): unknown {
  if (typeof value === 'number' && !isCount(key)) return formatDuration(value)
  if (Array.isArray(value)) return value.map((one) => shown(key, one))
  if (typeof value !== 'object' || value === null) return value
  if ('kind' in value && 'settings' in value) return { kind: value.kind, ...showConfig(value.settings as object) }
  return showConfig(value)
}

/** Numbers that are no durations say so in their name. */
const isCount = (key: string): boolean => key === 'port' || /bytes$/i.test(key)
