/** What `vidimus vault …` asks of the vaults that a server's configuration names. */
import type { ConfigChoice, VaultReport, Vaults } from '../cli/context.ts'
import { checkVault, type CheckTarget } from '../ca/vault/check.ts'
import { formatPolicy, pkiRights, sessionRights, transitRights, type Right } from '../ca/vault/rights.ts'
import { openVaultSession } from '../ca/vault/session.ts'
import type { VaultPkiSettings, VaultSettings, VaultTransitSettings } from '../ca/vault/settings.ts'
import { Failure } from '../kernel/failure.ts'
import { silentLog } from '../kernel/log.ts'
import { silentMeter } from '../kernel/meter.ts'
import { sourceOf } from './programs.ts'
import { systemWorld } from './world.ts'

export const vaults: Vaults = {
  async policy(choice) {
    const rights = 'config' in choice ? (await usesOf(choice.config)).flatMap(({ target }) => target.rights) : rightsByName(choice)
    const all = [...rights, ...sessionRights]
    return { rights: all, hcl: formatPolicy(all) }
  },

  async check(choice, signal) {
    const reports: VaultReport[] = []
    for (const { role, use, settings, target, requirePostQuantum } of await usesOf(choice)) {
      // What goes wrong is in the report; a log would tell it twice.
      const world = { ...systemWorld({ level: 'error', format: 'text' }, silentMeter), log: silentLog, requirePostQuantum }
      await using session = openVaultSession(settings, world, use)
      const findings = await checkVault(session, { ...target, rights: [...target.rights, ...sessionRights] }, world.clock, signal)
      reports.push({ role, address: settings.address, findings })
    }
    return reports
  },
}

/** One way in which a server uses a vault. */
interface Use {
  readonly role: string
  readonly use: 'pki' | 'transit'
  readonly settings: VaultSettings
  readonly target: CheckTarget
  readonly requirePostQuantum: boolean
}

/** @throws Failure `usage.no-vault` */
async function usesOf(choice: ConfigChoice): Promise<readonly Use[]> {
  const { loadServerConfig } = await import('./config/server.ts')
  const { ca, keyManager, upstreamAuthority, tls } = loadServerConfig(await sourceOf(choice), choice.overrides)
  const uses: Use[] = []
  if (upstreamAuthority.kind === 'vault') {
    // The schema of that driver made them.
    const settings = upstreamAuthority.settings as VaultPkiSettings
    const { mount, issuer } = settings
    uses.push({
      role: 'upstream authority',
      use: 'pki',
      settings,
      target: { rights: pkiRights(settings), pki: { mount, issuer, lifetime: ca.lifetime } },
      ...tls,
    })
  }
  if (keyManager.kind === 'vault-transit') {
    const settings = keyManager.settings as VaultTransitSettings
    uses.push({ role: 'key manager', use: 'transit', settings, target: { rights: transitRights(settings) }, ...tls })
  }
  if (uses.length > 0) return uses
  throw new Failure('invalid_argument', 'usage.no-vault', {
    public: 'the configuration names no vault: expected an `upstreamAuthority` of kind `vault` or a `keyManager` of kind `vault-transit`',
  })
}

function rightsByName(choice: Exclude<Parameters<Vaults['policy']>[0], { config: ConfigChoice }>): readonly Right[] {
  const { mount, issuer, transit, keyPrefix } = choice
  return [...pkiRights({ mount, issuer }), ...(transit === undefined ? [] : transitRights({ mount: transit, prefix: keyPrefix }))]
}
