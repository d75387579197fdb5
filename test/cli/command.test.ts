import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { commands } from '../../src/main/command-line.ts'
import type { Failure } from '../../src/kernel/failure.ts'
import { vidimus } from './rig.ts'

const text = (thrown: unknown): string => (thrown as Failure).message

describe('what is typed wrongly ends with exit code 2 and says what to type', () => {
  const cases: readonly [typed: string, says: string, next: string][] = [
    ['entyr', 'unknown command `entyr`: did you mean `entry`?', 'vidimus --help'],
    ['entry craete', 'unknown command `craete`: did you mean `create`?', 'vidimus entry --help'],
    ['entry', '`vidimus entry` needs a command: expected one of `create`, `show`, `update`, `import`, `delete`', 'vidimus entry --help'],
    ['fetch x509 --outptu json', 'unknown option `--outptu`: did you mean `--output`?', 'vidimus fetch x509 --help'],
    ['health --output yaml', 'option `--output <form>` argument `yaml`: expected one of `text`, `json`', 'vidimus health --help'],
    ['token generate --ttl', 'option `--ttl <duration>` argument missing', 'vidimus token generate --help'],
    ['token generate --ttl 5q', '`--ttl`: `5q` is not a duration', 'vidimus token generate --help'],
    ['agent show', 'missing required argument `id`', 'vidimus agent show --help'],
    ['agent show x', '`id`: `x` is not a SPIFFE ID', 'vidimus agent show --help'],
    ['agent ban spiffe://Example.org/a', '`id`: `spiffe://Example.org/a`', 'vidimus agent ban --help'],
    ['fetch x509 extra', 'too many arguments', 'vidimus fetch x509 --help'],
    ['fetch jwt', '`--audience` is missing', 'vidimus fetch jwt --help'],
    ['config print servr', '`kind`: expected one of `server`, `agent`, found `servr`', 'vidimus config print --help'],
    ['explain workload', '`--pid` is missing', 'vidimus explain workload --help'],
    ['explain workload --pid abc', '`--pid`: expected a whole number from 1, found `abc`', 'vidimus explain workload --help'],
    ['explain workload --pid 0', '`--pid`: expected a whole number from 1, found `0`', 'vidimus explain workload --help'],
    ['bundle show --format der', 'argument `der`: expected one of `pem`, `spiffe`', 'vidimus bundle show --help'],
    ['policy check', 'missing required argument `paths`', 'vidimus policy check --help'],
  ]
  test.each(cases)('vidimus %s', async (typed, says, next) => {
    const { code, out, thrown } = await vidimus(typed.split(' '))
    expect(code).toBe(2)
    expect(text(thrown)).toContain(says)
    expect(text(thrown)).toContain(`run \`${next}\``)
    expect(out, 'nothing but the error').toBe('')
  })

  test('every mistake of an entry is told at once', async () => {
    const { code, thrown } = await vidimus(['entry', 'create', '--spiffe-id', 'foo', '--selector', 'uid', '--x509-ttl', '1'])
    expect(code).toBe(2)
    expect(text(thrown).split('\n').slice(0, -1)).toEqual([
      '`--spiffe-id`: `foo` is not a SPIFFE ID: expected it to begin with `spiffe://`',
      '`--parent-id` is missing',
      '`--selector`: `uid` is not a selector: expected `type:value`, for example `unix:uid:1000`',
      expect.stringContaining('`--x509-ttl`: `1` is not a duration') as string,
    ])
  })
})

describe('a socket that nobody answers on', () => {
  const nowhere = join(tmpdir(), 'vidimus-nobody-listens-here.sock')

  test('is named, with the program that should listen there and the flag for another', async () => {
    const { code, thrown } = await vidimus(['entry', 'show', '--server-socket', nowhere])
    expect(code).toBe(1)
    expect((thrown as Failure).reason).toBe('socket.unanswered')
    expect(text(thrown)).toBe(
      `nobody answers on \`${nowhere}\`: is \`vidimus server run\` running on this machine? \`--server-socket\` names another socket`,
    )
  })

  test('is told apart from one that this user may not use', async () => {
    const { unanswered } = await import('../../src/cli/unanswered.ts')
    const { Failure: Made } = await import('../../src/kernel/failure.ts')
    const wire = (error: string) =>
      new Made('unavailable', 'rpc.unavailable', {
        public: 'away',
        internal: { text: `No connection established. Last error: Error: connect ${error}. Resolution note: ` },
      })
    expect(text(unanswered(wire('EACCES /run/x y.sock'), { agentAdminSocket: '/run/x y.sock' }))).toContain(
      'not permitted to connect to `/run/x y.sock`: run this as a user who may, for example the one that `vidimus agent run` runs as',
    )
    expect(text(unanswered(wire('ECONNREFUSED /run/w.sock'), { socket: 'unix:///run/w.sock' }))).toContain(
      '`--socket` names another socket',
    )
    const other = new Made('unavailable', 'rpc.unavailable', { public: 'away', internal: { text: 'the server is closing' } })
    expect(unanswered(other, {}), 'what is no connection stays as it is').toBe(other)
  })
})

describe('help', () => {
  test('of the whole says what each exit code means', async () => {
    for (const args of [[], ['--help'], ['help']]) {
      const { code, out } = await vidimus(args)
      expect(code).toBe(0)
      expect(out).toContain('Exit codes:')
      for (const noun of new Set(commands.map(({ name }) => name.split(' ')[0]!)))
        expect(out).toMatch(new RegExp(`^  ${noun}\\b.*\\S`, 'm'))
    }
  })

  test.each(commands.map(({ name }) => name))('of `vidimus %s` has a summary, a line for each flag, and `--output`', async (name) => {
    const { code, out } = await vidimus([...name.split(' '), '--help'])
    const { summary } = commands.find((one) => one.name === name)!
    expect(code).toBe(0)
    expect(out).toContain(`Usage: vidimus ${name} `)
    expect(out.replaceAll(/\s+/g, ' ')).toContain(summary)
    expect(out).toContain('--output <form>')
    for (const line of out.split('\n').filter((one) => one.startsWith('  --')))
      expect(line, 'a flag without words').toMatch(/^ {2}--\S+( <\S+>)?( {2,}\S|$)/)
  })

  test('of a group lists its commands, each with a summary', async () => {
    for (const noun of new Set(commands.flatMap(({ name }) => (name.includes(' ') ? [name.split(' ')[0]!] : [])))) {
      const { code, out } = await vidimus([noun, '--help'])
      expect(code).toBe(0)
      for (const { name } of commands.filter((one) => one.name.startsWith(`${noun} `)))
        expect(out).toMatch(new RegExp(`^  ${name.split(' ')[1]!} .*\\S`, 'm'))
    }
  })

  test('every example is a line that the command line takes', async () => {
    for (const { name, examples = [] } of commands) {
      for (const example of examples.filter((one) => one.startsWith('vidimus '))) {
        expect(example.startsWith(`vidimus ${name}`) || name.startsWith('validate'), example).toBe(true)
        const args = example
          .split(/ [|>] /)[0]!
          .split(' ')
          .slice(1)
        const { thrown } = await vidimus([
          ...args.map((arg) => arg.replace(/^"\$\(pidof.*/, '1')).filter((arg) => arg !== 'orders)"'),
          '--help',
        ])
        expect(thrown, example).toBeUndefined()
      }
    }
  })
})

describe('completion', () => {
  test('is a script that bash reads, and that completes nouns, verbs, flags', async () => {
    const { out } = await vidimus(['completion'])
    const directory = mkdtempSync(join(tmpdir(), 'vb-'))
    try {
      const script = join(directory, 'completion.bash')
      writeFileSync(script, out)
      execFileSync('bash', ['-n', script])
      const complete = (...words: string[]) =>
        execFileSync(
          'bash',
          [
            '--norc',
            '-c',
            `source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _vidimus; echo "\${COMPREPLY[*]}"`,
            'bash',
            script,
            ...words,
          ],
          { encoding: 'utf8' },
        )
          .trim()
          .split(' ')
      expect(complete('vidimus', 'ent')).toEqual(['entry'])
      expect(complete('vidimus', '')).toEqual(expect.arrayContaining(['server', 'agent', 'health', 'completion']))
      expect(complete('vidimus', 'entry', '')).toEqual(['create', 'show', 'update', 'import', 'delete'])
      expect(complete('vidimus', 'entry', 'create', '--sp')).toEqual(['--spiffe-id'])
      expect(complete('vidimus', 'entry', 'create', '--spiffe-id', 'spiffe://a/b', '--x5')).toEqual(['--x509-ttl'])
      expect(complete('vidimus', 'health', '--a')).toEqual(expect.arrayContaining(['--agent', '--agent-admin-socket']))
      expect(complete('vidimus', 'nonsense', '')).toEqual([''])
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  test('knows every command', async () => {
    const { json } = await vidimus(['completion', '--output', 'json'])
    expect((json() as { name: string }[]).map(({ name }) => name)).toEqual(
      commands.filter(({ name }) => name !== 'completion').map(({ name }) => name),
    )
  })
})
