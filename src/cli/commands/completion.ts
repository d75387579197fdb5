import { z } from 'zod'
import { command, vocabulary, type AnyCommand } from '../command.ts'

/** Prints a script that teaches bash the given commands; zsh reads it too, after `autoload bashcompinit && bashcompinit`. */
export const completionOf = (commands: readonly AnyCommand[]) =>
  command({
    name: 'completion',
    summary: 'print a completion script for bash or zsh',
    flags: z.strictObject({}),
    examples: ['source <(vidimus completion)'],
    run: () => Promise.resolve({ value: vocabulary(commands), text: script(commands) }),
  })

/** Completes the words of the command that is being typed; after a whole command, its flags. */
function script(commands: readonly AnyCommand[]): string {
  const cases = vocabulary(commands).map(({ name, flags }) => `    '${name}') words='${flags.join(' ')}' ;;`)
  const names = vocabulary(commands).map(({ name }) => name)
  const nouns = new Set([...names.map((name) => name.split(' ')[0]!), 'completion'])
  const verbs = [...nouns].flatMap((noun) => {
    const own = names.filter((name) => name.startsWith(`${noun} `)).map((name) => name.slice(noun.length + 1))
    return own.length === 0 ? [] : [`    '${noun}') words='${own.join(' ')}' ;;`]
  })
  return [
    '_vidimus() {',
    '  local words="" typed="${COMP_WORDS[*]:1:COMP_CWORD-1}"',
    '  case "$(echo "$typed" | sed -E "s/ +-.*//")" in',
    `    '') words='${[...nouns].join(' ')}' ;;`,
    ...verbs,
    ...cases,
    '  esac',
    '  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))',
    '}',
    'complete -o default -F _vidimus vidimus',
  ].join('\n')
}
