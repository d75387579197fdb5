import { stringify } from 'yaml'
import { z } from 'zod'
import { command } from '../command.ts'
import { configFlags, positional } from '../flags.ts'

const flags = z.strictObject({ ...configFlags, kind: positional(z.enum(['server', 'agent'])) })
const kindArgument = [{ name: 'kind', help: '`server` or `agent`' }]

export const configValidate = command({
  name: 'config validate',
  summary: 'check a configuration without starting anything',
  flags,
  positional: kindArgument,
  examples: ['vidimus config validate server --config /etc/vidimus/server.yaml'],
  async run({ kind, config, set }, { programs }) {
    await programs.effectiveConfig(kind, { path: config, overrides: set })
    return { value: { kind, valid: true }, text: `the ${kind} configuration is valid` }
  },
})

export const configPrint = command({
  name: 'config print',
  summary: 'print a configuration as it is meant, with every default',
  flags,
  positional: kindArgument,
  examples: ['vidimus config print agent --config /etc/vidimus/agent.yaml'],
  async run({ kind, config, set }, { programs }) {
    const value = await programs.effectiveConfig(kind, { path: config, overrides: set })
    return { value, text: stringify(value) }
  },
})
