import { spawn } from 'node:child_process'

export interface Outcome {
  /** Undefined if the program could not be started, or was ended by a signal. */
  readonly code: number | undefined
  readonly stdout: string
  readonly stderr: string
  /** Why there is no code, or undefined. */
  readonly failure: string | undefined
}

export interface RunOptions {
  /** The program is killed when this many milliseconds have passed. */
  readonly deadlineMs: number
  readonly cwd?: string
  /** Added to our own environment. */
  readonly env?: Readonly<Record<string, string>>
  /** Hands our own standard output and error through instead of collecting them. */
  readonly show?: boolean
}

/** Runs a program to its end, without input. Never throws: what went wrong is in the outcome. */
export function run(command: string, args: readonly string[], options: RunOptions): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: ['ignore', options.show === true ? 'inherit' : 'pipe', options.show === true ? 'inherit' : 'pipe'],
    })
    const stdout = new Tail(child.stdout)
    const stderr = new Tail(child.stderr)
    let late = false
    const timer = setTimeout(() => {
      late = true
      child.kill('SIGKILL')
      // A grandchild that lives on would keep the pipes, and so the promise, open.
      child.stdout?.destroy()
      child.stderr?.destroy()
    }, options.deadlineMs)
    const finish = (code: number | null, failure: string | undefined) => {
      clearTimeout(timer)
      resolve({ code: code ?? undefined, stdout: stdout.text(), stderr: stderr.text(), failure })
    }
    child.once('error', (error: NodeJS.ErrnoException) =>
      finish(null, error.code === 'ENOENT' ? `\`${command}\` is not on PATH` : error.message),
    )
    child.once('close', (code, signal) => {
      if (late) finish(null, `\`${command}\` did not end within ${options.deadlineMs / 1000} s`)
      else finish(code, signal === null ? undefined : `\`${command}\` was ended by ${signal}`)
    })
  })
}

/** The last lines that a program wrote, for people: what is worth repeating of a failure. */
export function lastWords(outcome: Outcome, lines = 4): string {
  if (outcome.failure !== undefined) return outcome.failure
  const said = `${outcome.stdout}\n${outcome.stderr}`.split('\n').filter((line) => line.trim() !== '')
  return said.length === 0 ? `ended with ${outcome.code}` : said.slice(-lines).join(' | ')
}

/** Keeps the end of what a stream brings. */
class Tail {
  #text = ''

  constructor(stream: NodeJS.ReadableStream | null) {
    stream?.setEncoding('utf8').on('data', (part: string) => {
      this.#text = (this.#text + part).slice(-maxKept)
    })
  }

  text(): string {
    return this.#text
  }
}

const maxKept = 1024 * 1024
