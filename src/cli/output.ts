/** One value, printed for people or for programs. */

/** What a command shows: the value as JSON has it, and the same for people. */
export interface Shown {
  readonly value: unknown
  readonly text: string
  /** False makes the command exit with 1: the answer is no. */
  readonly ok?: boolean
  /** Where the command has it ({@link OutputForm}): the same as a JUnit report, as Markdown, as SARIF, as comma-separated values. */
  readonly junit?: string
  readonly markdown?: string
  readonly sarif?: string
  readonly csv?: string
}

/** How a result may be printed. */
export type OutputForm = 'text' | 'json' | 'junit' | 'yaml' | 'markdown' | 'sarif' | 'csv'

/** Where a command prints. */
export interface Terminal {
  out(text: string): void
  err(text: string): void
  /** Makes the process exit with 1 when it ends. */
  fail(): void
}

export function print(shown: Shown, output: OutputForm, terminal: Terminal): void {
  const told = output === 'json' || output === 'yaml' ? shown.text : (shown[output] ?? '')
  terminal.out(output === 'json' ? `${JSON.stringify(shown.value, plain, 2)}\n` : endingWithNewline(told))
  if (shown.ok === false) terminal.fail()
}

/** `1 file`, `2 files`. */
export const counted = (count: number, one: string, many = `${one}s`): string => `${count} ${count === 1 ? one : many}`

/** Rows under their headings, in columns as wide as their widest cell. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = headings.map((heading, column) => Math.max(heading.length, ...rows.map((row) => row[column]?.length ?? 0)))
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd()
  return [line(headings), ...rows.map(line)].join('\n')
}

/** `name: value` lines, values aligned; those without a value are left out. */
export function facts(pairs: readonly (readonly [name: string, value: string | undefined])[]): string {
  const told = pairs.filter((pair): pair is readonly [string, string] => pair[1] !== undefined && pair[1] !== '')
  const width = Math.max(0, ...told.map(([name]) => name.length))
  return told.map(([name, value]) => `${`${name}:`.padEnd(width + 2)}${value}`).join('\n')
}

const endingWithNewline = (text: string): string => (text === '' || text.endsWith('\n') ? text : `${text}\n`)

/** JSON has no 64-bit numbers and no bytes: both become text. */
function plain(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString()
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64')
  return value
}
