/** The real log: pino, one line an event, on standard error. */
import { pino, stdTimeFunctions, type Logger } from 'pino'
import type { Log, LogFields } from '../kernel/log.ts'

export interface LogConfig {
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  readonly format: 'text' | 'json'
}

export function openLog(config: LogConfig): Log {
  const out =
    config.format === 'json' ? pino.destination({ dest: 2, sync: true }) : { write: (line: string) => process.stderr.write(asText(line)) }
  return adapt(
    pino(
      { level: config.level, base: null, timestamp: stdTimeFunctions.isoTime, formatters: { level: (label) => ({ level: label }) } },
      out,
    ),
  )
}

function adapt(logger: Logger): Log {
  const at = (level: 'debug' | 'info' | 'warn' | 'error') => (message: string, fields?: LogFields) => {
    if (logger.isLevelEnabled(level)) logger[level](printable(fields), message)
  }
  return {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    with: (fields) => adapt(logger.child(printable(fields))),
  }
}

/** pino cannot write a bigint. */
function printable(fields: LogFields = {}): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, typeof value === 'bigint' ? value.toString() : value]))
}

/** `12:00:01 info  server ready  address=127.0.0.1:8081` */
function asText(line: string): string {
  const { level, time, msg, ...fields } = JSON.parse(line) as { level: string; time: string; msg: string }
  const told = Object.entries(fields).map(([name, value]) => `${name}=${asWord(value)}`)
  return `${time.slice(11, 19)} ${level.padEnd(5)} ${msg}${told.length > 0 ? `  ${told.join(' ')}` : ''}\n`
}

/** Quoted where a bare word could be read as something else: a value never begins a line or a field of its own. */
function asWord(value: unknown): string {
  if (typeof value === 'string' && /^[\w./:@+,%~*-]+$/.test(value)) return value
  return (JSON.stringify(value) ?? 'undefined').replace(
    /[\u007f-\u009f\u2028\u2029]/g,
    (odd) => `\\u${odd.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}
