import { z } from 'zod'
import { command } from '../command.ts'
import type { VaultReport } from '../context.ts'
import { configFlags, parsed, within } from '../flags.ts'
import { Failure } from '../../kernel/failure.ts'

/** V-1: what becomes part of a path in a policy is made of little. */
const path = parsed((text) => {
  if (/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}(?:\/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}){0,15}$/.test(text)) return text
  throw new Failure('invalid_argument', 'usage.wrong', {
    public: `\`${text.slice(0, 80)}\` is not a path of a vault: expected segments of letters, digits, \`.\`, \`_\` and \`-\``,
  })
})

export const vaultPolicy = command({
  name: 'vault policy',
  summary: 'print the least-privilege policy that a server needs at its vault',
  flags: z.strictObject({
    ...configFlags,
    mount: path.default('pki').describe('the PKI mount, where no configuration says it').meta({ value: 'path' }),
    issuer: path.optional().describe("the issuer within it; the mount's default when left out").meta({ value: 'name' }),
    transit: path.optional().describe('the Transit mount that keeps our keys').meta({ value: 'path' }),
    keyPrefix: path.default('vidimus').describe('what the names of our keys begin with').meta({ value: 'name' }),
  }),
  examples: [
    'vidimus vault policy --config /etc/vidimus/server.yaml | vault policy write vidimus -',
    'vidimus vault policy --mount pki --issuer vidimus-root --transit transit',
  ],
  async run({ config, set, mount, issuer, transit, keyPrefix }, { vaults }) {
    const isConfigured = config !== undefined || set.length > 0
    const { rights, hcl } = await vaults.policy(
      isConfigured ? { config: { path: config, overrides: set } } : { mount, issuer, transit, keyPrefix },
    )
    return { value: { rights, hcl }, text: hcl }
  },
})

export const vaultCheck = command({
  name: 'vault check',
  summary: 'log in to the vaults of a server as it would, and say what is missing there',
  flags: z.strictObject(configFlags),
  examples: ['vidimus vault check --config /etc/vidimus/server.yaml'],
  async run({ config, set }, { vaults, stop }) {
    const reports = await vaults.check({ path: config, overrides: set }, within(stop))
    const ok = reports.every(({ findings }) => findings.every((finding) => finding.ok))
    return { value: { ok, vaults: reports }, text: reports.map(told).join('\n'), ok }
  },
})

function told({ role, address, findings }: VaultReport): string {
  const lines = findings.map(({ ok, what, text, remedy }) => {
    const line = `  ${ok ? 'ok     ' : 'missing'}  ${what.padEnd(8)}  ${text}`
    return remedy === undefined ? line : `${line}\n${remedy.replace(/^/gm, '             add: ')}`
  })
  return [`${role} at ${address}`, ...lines].join('\n')
}
