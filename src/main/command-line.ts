/** The list of commands, and what they are handed from other rooms. */
import { runCommandLine, type AnyCommand } from '../cli/command.ts'
import type { Context } from '../cli/context.ts'
import { agentBan, agentEvict, agentList, agentRelease, agentRun, agentShow } from '../cli/commands/agent.ts'
import { auditVerify } from '../cli/commands/audit.ts'
import {
  authorityActivate,
  authorityPrepare,
  authorityRevoke,
  authorityShow,
  authorityTaint,
  upstreamRevoke,
  upstreamTaint,
} from '../cli/commands/authority.ts'
import { bundleShow } from '../cli/commands/bundle.ts'
import { completionOf } from '../cli/commands/completion.ts'
import { conformance } from '../cli/commands/conformance.ts'
import { configPrint, configValidate } from '../cli/commands/config.ts'
import { entryCreate, entryDelete, entryImport, entryShow, entryUpdate } from '../cli/commands/entry.ts'
import { explainWorkload } from '../cli/commands/explain.ts'
import { fetchBundles, fetchJwt, fetchWit, fetchX509, validateJwt } from '../cli/commands/fetch.ts'
import { health } from '../cli/commands/health.ts'
import { policyCheck, policySchema } from '../cli/commands/policy.ts'
import { policyDiff, policyEquivalent, policyExplain, policyLint, policyReach, policyWhoCan } from '../cli/commands/policy-analysis.ts'
import { policyCompile, policyEval, policyNormalize } from '../cli/commands/policy-pipeline.ts'
import { inspect } from '../cli/commands/inspect.ts'
import {
  policyApply,
  policyHistory,
  policyList,
  policyRollback,
  policyShadowReport,
  policyShadowStart,
  policyShadowStop,
  policySign,
} from '../cli/commands/policy-release.ts'
import { policyTest } from '../cli/commands/policy-test.ts'
import { serverRun } from '../cli/commands/server.ts'
import { tokenGenerate } from '../cli/commands/token.ts'
import { vaultCheck, vaultPolicy } from '../cli/commands/vault.ts'
import { systemClock } from '../kernel/clock.ts'
import { openOperatorApi, openWorkloadApi } from './apis.ts'
import { auditor } from './auditor.ts'
import { systemDisk } from './disk.ts'
import { judge } from './judge.ts'
import { proxies } from './proxies.ts'
import { runProcess, terminal } from './process.ts'
import { programs } from './programs.ts'
import { vaults } from './vaults.ts'
import { version } from './version.ts'

const operations: readonly AnyCommand[] = [
  serverRun,
  agentRun,
  tokenGenerate,
  entryCreate,
  entryShow,
  entryUpdate,
  entryImport,
  entryDelete,
  agentList,
  agentShow,
  agentBan,
  agentEvict,
  agentRelease,
  bundleShow,
  authorityShow,
  authorityPrepare,
  authorityActivate,
  authorityTaint,
  authorityRevoke,
  upstreamTaint,
  upstreamRevoke,
  fetchX509,
  fetchJwt,
  fetchWit,
  fetchBundles,
  validateJwt,
  conformance,
  inspect,
  policyCheck,
  policyTest,
  policySchema,
  policyEval,
  policyCompile,
  policyNormalize,
  policyDiff,
  policyEquivalent,
  policyWhoCan,
  policyReach,
  policyExplain,
  policyLint,
  policyApply,
  policyList,
  policyHistory,
  policyRollback,
  policySign,
  policyShadowStart,
  policyShadowReport,
  policyShadowStop,
  explainWorkload,
  vaultPolicy,
  vaultCheck,
  configValidate,
  configPrint,
  auditVerify,
  health,
]

/** Every command there is. */
export const commands: readonly AnyCommand[] = [...operations, completionOf(operations)]

/** Runs the command that the arguments name, and leaves its exit code behind. */
export async function main(args: readonly string[]): Promise<void> {
  await runProcess((stop) => {
    const context: Context = {
      terminal,
      stop,
      clock: systemClock,
      disk: systemDisk,
      programs,
      vaults,
      proxies,
      openWorkloadApi,
      openOperatorApi,
      judge,
      auditor,
    }
    return runCommandLine(commands, args, context, version)
  })
}
