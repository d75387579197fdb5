/** What a command is, and how a list of commands becomes a command line. */
import { Command as Line, CommanderError, Option } from 'commander'
import { z } from 'zod'
import { Failure } from '../kernel/failure.ts'
import type { Context } from './context.ts'
import { type OutputForm, print, type Shown } from './output.ts'
import { unanswered } from './unanswered.ts'
import { listed, problem, wording } from './wording.ts'

/**
 * One command. `flags` is a zod object: its keys become flags in kebab case, its descriptions their help; a boolean is a switch,
 * an array may be given several times, everything else takes a value whose name `meta({ value })` gives.
 */
export interface Command<Flags = unknown> {
  /** `entry create` */
  readonly name: string
  readonly summary: string
  readonly flags: z.ZodType<Flags>
  /** Positional arguments by name; the last may be repeated. They reach `run` under their names. */
  readonly positional?: readonly { readonly name: string; readonly help: string; readonly many?: boolean; readonly optional?: boolean }[]
  /** How it prints besides text and JSON. */
  readonly forms?: readonly OutputForm[]
  /** Lines for the end of the help. */
  readonly examples?: readonly string[]
  /** What to show; nothing for commands that run until they are stopped. */
  run(flags: Flags, context: Context): Promise<Shown | void>
}

/** A command whose flags' types were forgotten: its schema remembers them. */
export type AnyCommand = Omit<Command, 'flags' | 'run'> & {
  readonly flags: z.ZodType
  run(flags: never, context: Context): Promise<Shown | void>
}

/** Gives a command its types; nothing else. */
export const command = <Flags>(definition: Command<Flags>): Command<Flags> => definition

/**
 * Runs the command that the arguments name.
 * @throws Failure `usage.*` for what was typed wrongly, and whatever the command throws. Help and version are printed and end quietly.
 */
export async function runCommandLine(
  commands: readonly AnyCommand[],
  args: readonly string[],
  context: Context,
  version: string,
): Promise<void> {
  const { terminal } = context
  const program = new Line('vidimus')
    .description('Identity and authorization for every workload: a SPIFFE certificate authority, its agent, and the tools to run them.')
    .version(version)
    .helpCommand('help [command]', 'help for a command')
    .addHelpText('after', afterHelp)
  for (const one of commands) addTo(program, one, context)
  configure(program, (text) => terminal.out(text))
  if (args.length === 0) return program.outputHelp()
  try {
    await program.parseAsync([...args], { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return
    throw mistyped(error, lineOf(program, args))
  }
}

/** The innermost command that the arguments name. */
function lineOf(line: Line, [word, ...rest]: readonly string[]): Line {
  const child = line.commands.find((one) => one.name() === word)
  return child ? lineOf(child, rest) : line
}

function mistyped({ code, message }: CommanderError, line: Line): Failure {
  const name = fullName(line)
  const text =
    code === 'commander.help'
      ? `\`${name}\` needs a command: expected one of ${listed(line.commands.map((one) => one.name()))}`
      : inOurWords(message)
  return new Failure('invalid_argument', 'usage.wrong', { public: `${text}\nrun \`${name} --help\` for what there is` })
}

const fullName = (line: Line): string => (line.parent ? `${fullName(line.parent)} ${line.name()}` : line.name())

/** commander's sentences with its quotes as ours, on one line. */
const inOurWords = (message: string): string =>
  message
    .replace(/^error: /, '')
    .replace(/\.?\n\(Did you mean (?:one of )?(.+)\?\)/, (_, near: string) => `: did you mean ${listed(near.split(', '))}?`)
    .replace(/ is invalid\. Allowed choices are (.+)\.$/, (_, choices: string) => `: expected one of ${listed(choices.split(', '))}`)
    .replace('. Expected', ': expected')
    .replace(/\.$/, '')
    .replaceAll("'", '`')

/** The words and flags of every command, for completion. */
export function vocabulary(commands: readonly AnyCommand[]): readonly { readonly name: string; readonly flags: readonly string[] }[] {
  return commands.map(({ name, flags }) => ({
    name,
    flags: [...shapeOf(flags)].map(([key]) => `--${kebab(key)}`).concat('--output', '--help'),
  }))
}

function addTo(program: Line, one: AnyCommand, context: Context): void {
  const words = one.name.split(' ')
  const line = words.slice(0, -1).reduce(group, program).command(words.at(-1)!).summary(one.summary).description(`${one.summary}.`)
  for (const { name, help, many, optional } of one.positional ?? []) {
    const text = `${name}${many ? '...' : ''}`
    line.argument(optional ? `[${text}]` : `<${text}>`, help)
  }
  for (const [key, schema] of shapeOf(one.flags)) line.addOption(optionOf(key, schema))
  line.addOption(new Option('--output <form>', 'how to print the result').choices(['text', 'json', ...(one.forms ?? [])]).default('text'))
  if (one.examples) line.addHelpText('after', `\nExamples:\n${one.examples.map((example) => `  ${example}`).join('\n')}`)
  line.action(async (...given: unknown[]) => {
    const { output, ...options } = line.opts<{ output: OutputForm } & Record<string, unknown>>()
    const positional = Object.fromEntries(
      (one.positional ?? []).flatMap(({ name }, index) => (given[index] === undefined ? [] : [[name, given[index]]])),
    )
    const flags = meant(one, { ...options, ...positional })
    try {
      const shown = await one.run(flags, context)
      if (shown) print(shown, output, context.terminal)
    } catch (error) {
      throw unanswered(error, flags)
    }
  })
}

/** The group of commands that a noun makes, made at its first use. */
function group(parent: Line, word: string): Line {
  return parent.commands.find((line) => line.name() === word) ?? parent.command(word).description(nouns[word] ?? '')
}

/** What was typed, as the command's schema means it. */
function meant(one: AnyCommand, options: Record<string, unknown>): never {
  const result = one.flags.safeParse(options, { error: wording })
  if (result.success) return result.data as never
  const problems = result.error.issues.map(({ path, message }) => {
    const key = String(path[0] ?? '')
    const isPositional = one.positional?.some(({ name }) => name === key)
    return problem(isPositional ? key : `--${kebab(key)}`, message)
  })
  throw new Failure('invalid_argument', 'usage.wrong', {
    public: `${problems.join('\n')}\nrun \`vidimus ${one.name} --help\` for what it takes`,
  })
}

function optionOf(key: string, schema: z.ZodType): Option {
  const { value = 'value', shown } = (schema.meta() ?? {}) as { value?: string; shown?: string }
  const inner = unwrapped(schema)
  const name = `--${kebab(key)}`
  if (inner instanceof z.ZodBoolean) return new Option(name, schema.description)
  const option = new Option(`${name} <${value}>`, schema.description)
  if (inner instanceof z.ZodArray) option.argParser((text: string, before: string[] | undefined) => [...(before ?? []), text])
  if (inner instanceof z.ZodEnum) option.choices(inner.options.map(String))
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault) {
    const standard: unknown = schema.def.defaultValue
    if (typeof standard === 'string') option.default(standard)
    else if (shown !== undefined) option.description += ` (default: ${shown})`
  }
  if (!schema.safeParse(undefined).success) option.description += ' (required)'
  return option
}

/** The flags of a schema; positional arguments among its keys are not flags, they carry `meta({ positional: true })`. */
function shapeOf(schema: z.ZodType): Iterable<[string, z.ZodType]> {
  if (!(schema instanceof z.ZodObject)) throw new Error('bug: the flags of a command are a zod object')
  return Object.entries(schema.shape as Record<string, z.ZodType>).filter(([, one]) => one.meta()?.['positional'] !== true)
}

function unwrapped(schema: z.ZodType): z.ZodType {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault)
    return unwrapped(schema.unwrap() as z.ZodType)
  if (schema instanceof z.ZodPipe) return unwrapped(schema.in as z.ZodType)
  return schema
}

function configure(line: Line, out: (text: string) => void): void {
  line
    .exitOverride()
    .configureOutput({ writeOut: out, writeErr: () => {} })
    .showSuggestionAfterError()
  for (const child of line.commands) configure(child, out)
}

const kebab = (key: string): string => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)

const nouns: Readonly<Record<string, string>> = {
  shadow: 'try a whole set of policies beside the one in force',
  server: 'the certificate authority',
  agent: 'the agent of a node, and the agents that a server knows',
  token: 'join tokens',
  entry: 'registration entries: who may hold which identity',
  authority: 'the keys and certificates that sign',
  upstream: 'the roots above our authorities',
  bundle: 'the trust bundle',
  fetch: 'what the Workload API gives to this process',
  validate: 'tokens, as the Workload API judges them',
  policy: 'authorization policies',
  explain: 'why something is as it is',
  vault: 'the HashiCorp Vault or OpenBao that signs our CA or keeps its keys',
  config: 'configuration files',
  audit: 'what happened, and whether the record of it is as it was written',
}

const afterHelp = `
Exit codes:
  0  done
  1  it failed, or the answer is no
  2  the command line or the configuration is wrong`
