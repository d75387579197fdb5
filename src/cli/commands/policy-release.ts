/** Putting policies in force, looking at what is and was, going back, and signing. */
import { createPrivateKey, type KeyObject } from 'node:crypto'
import { basename, relative } from 'node:path'
import { z } from 'zod'
import { formatInstant, type Instant } from '../../kernel/clock.ts'
import { formatDuration, parseDuration } from '../../kernel/duration.ts'
import { Failure } from '../../kernel/failure.ts'
import { diffSets } from '../../policy/analysis/diff.ts'
import { checkPolicies, type LanguageOptions } from '../../policy/language.ts'
import type { PolicyDocument } from '../../policy/policy-set.ts'
import { signPolicySet } from '../../policy/signed-set.ts'
import { parseTrustDomain, type TrustDomain } from '../../spiffe/trust-domain.ts'
import { type AppliedSet, connectAdmin, type PolicyChanges, type SeenInShadow } from '../../server-api/client.ts'
import { command } from '../command.ts'
import type { Disk } from '../context.ts'
import { parsed, positive, serverSocket, within } from '../flags.ts'
import { counted, facts, type Shown, table } from '../output.ts'
import { diffText, diffValue } from '../policy-reports.ts'
import { listed } from '../wording.ts'
import { paths, pathsArgument, policyFiles, valid } from './policy.ts'

/** How a set is to be read. Nothing said: strict for a first set, else as the set in force. */
const readingFlags = {
  trustDomainAlias: z
    .array(parsed(parseTrustDomain))
    .default([])
    .describe('another name of the trust domain that policies may use, as often as needed')
    .meta({ value: 'name' }),
  compat: z.enum(['strict', 'istio']).optional().describe("how to read the set: strict, or with Istio's verdicts, holes included"),
  rootNamespace: z
    .string()
    .min(1)
    .optional()
    .describe('the namespace whose policies apply everywhere; by default istio-system')
    .meta({ value: 'name' }),
}

export const policyApply = command({
  name: 'policy apply',
  summary: 'put policies in force: these files, and those of other names that are in force already',
  flags: z.strictObject({
    ...serverSocket,
    ...readingFlags,
    paths,
    dryRun: z.boolean().default(false).describe('say which files and which verdicts would change, and change nothing'),
    prune: z.boolean().default(false).describe('take away what is in force and not among these files'),
    signature: z
      .string()
      .optional()
      .describe('what `policy sign` made of these files; such a set is whole, as with --prune')
      .meta({ value: 'path' }),
    expectedVersion: z.string().min(1).optional().describe('refuse unless this version is in force').meta({ value: 'version' }),
    force: z.boolean().default(false).describe('also where no administrator could call the server any more'),
  }),
  positional: pathsArgument,
  examples: [
    'vidimus policy apply --dry-run --prune policies/',
    'vidimus policy apply policies/',
    'vidimus policy apply --signature policies.sig policies/',
  ],
  async run(
    { serverSocket, paths, compat, rootNamespace, trustDomainAlias, signature, dryRun, prune, expectedVersion, force },
    { disk, stop, clock },
  ) {
    const options = optionsOf({ compat, rootNamespace, trustDomainAlias })
    valid(await policyFiles(disk, paths), options)
    const documents = await namedInside(disk, paths)
    const proof = signature === undefined ? undefined : (await disk.read(signature)).trim()
    await using server = connectAdmin(serverSocket)
    const before = dryRun ? await server.policies.list(within(stop)) : undefined
    const applied = await server.policies.apply(
      {
        documents,
        ...(options && { options }),
        ...(proof !== undefined && { signature: proof }),
        ...(expectedVersion !== undefined && { expectedVersion }),
        dryRun,
        prune,
        force,
      },
      within(stop),
    )
    const changes = applied.changes ?? { added: [], changed: [], removed: [], unchanged: [] }
    const { version, serial } = applied
    const compared = before && compareSets(before, withTexts(applied, [...before.documents, ...documents]), clock.now())
    return {
      value: {
        version,
        serial,
        dryRun,
        documents: applied.documents.map(({ name }) => name),
        changes: plainly(changes),
        ...(compared && { diff: compared.value }),
      },
      text: compared
        ? `a dry run: nothing has changed\n${whatChanges(changes, 'would be ')}\n\n${compared.text}`
        : `${inForce(applied)}\n${whatChanges(changes, '')}`,
    }
  },
})

export const policyList = command({
  name: 'policy list',
  summary: 'show the policies in force',
  flags: z.strictObject(serverSocket),
  async run({ serverSocket }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const { version, serial, documents, options, signature, appliedAt, appliedBy } = await server.policies.list(within(stop))
    const { set } = checkPolicies(documents, options)
    const policies = (set?.policies ?? []).map(({ name, action, rules }) => ({ name, action, rules: rules.length }))
    const text =
      appliedAt === undefined
        ? 'no policies were applied: nothing is allowed'
        : `version ${version.slice(0, 16)}, serial ${serial}, ${options?.mode ?? 'strict'} mode, applied ${formatInstant(appliedAt)}${signature === undefined ? '' : ', signed'}\n\n${table(
            ['POLICY', 'ACTION', 'RULES'],
            policies.map(({ name, action, rules }) => [name, action, String(rules)]),
          )}`
    return {
      value: {
        version,
        serial,
        options: options ?? {},
        ...(signature === undefined ? {} : { signature }),
        ...(appliedAt === undefined ? {} : { appliedAt: formatInstant(appliedAt) }),
        ...(appliedBy === undefined ? {} : { appliedBy }),
        policies,
        documents,
      },
      text,
    }
  },
})

export const policyHistory = command({
  name: 'policy history',
  summary: 'show what was in force, the newest first',
  flags: z.strictObject({ ...serverSocket, limit: positive.default(20).describe('at most so many, up to 100').meta({ value: 'n' }) }),
  async run({ serverSocket, limit }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const sets = await server.policies.history(Math.min(limit, 100), within(stop))
    const rows = sets.map(({ serial, version, documents, appliedAt, appliedBy, options, signature }) => ({
      serial,
      version,
      appliedAt: appliedAt === undefined ? '' : formatInstant(appliedAt),
      appliedBy: appliedBy ?? '',
      mode: options?.mode ?? 'strict',
      signed: signature !== undefined,
      documents: documents.map(({ name }) => name),
    }))
    return {
      value: { sets: rows },
      text:
        rows.length === 0
          ? 'no policies were applied yet'
          : table(
              ['SERIAL', 'VERSION', 'APPLIED', 'FILES', 'MODE', 'SIGNED', 'BY'],
              rows.map((row) => [
                String(row.serial),
                row.version.slice(0, 16),
                row.appliedAt,
                String(row.documents.length),
                row.mode,
                row.signed ? 'yes' : 'no',
                row.appliedBy,
              ]),
            ),
    }
  },
})

export const policyRollback = command({
  name: 'policy rollback',
  summary: 'put in force again what was in force before, in one step',
  flags: z.strictObject({
    ...serverSocket,
    to: positive
      .optional()
      .describe('the serial to go back to, as `policy history` shows it; by default the one before')
      .meta({ value: 'serial' }),
    force: z.boolean().default(false).describe('also where no administrator could call the server any more'),
  }),
  examples: ['vidimus policy rollback', 'vidimus policy rollback --to 41'],
  async run({ serverSocket, to, force }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const applied = await server.policies.rollBack({ serial: to ?? 0, force }, within(stop))
    const changes = applied.changes ?? { added: [], changed: [], removed: [], unchanged: [] }
    const { version, serial } = applied
    return { value: { version, serial, changes: plainly(changes) }, text: `${inForce(applied)}\n${whatChanges(changes, '')}` }
  },
})

export const policySign = command({
  name: 'policy sign',
  summary: 'sign a whole set of policy files, for servers and agents that ask for it',
  flags: z.strictObject({
    ...readingFlags,
    paths,
    key: z.string().describe('the private key, PEM: P-256, P-384, Ed25519 or RSA').meta({ value: 'path' }),
    serial: positive.describe('above that of every set signed before: it is never accepted twice').meta({ value: 'n' }),
    expiresIn: parsed(parseDuration)
      .prefault('90d')
      .describe('for how long the signature can be used to put the set in force')
      .meta({ value: 'duration' }),
    out: z.string().default('-').describe('where the signature goes; `-` for standard output').meta({ value: 'path' }),
  }),
  positional: pathsArgument,
  examples: ['vidimus policy sign --key signer.pem --serial 7 --out policies.sig policies/'],
  async run({ paths, key, serial, expiresIn, out, compat, rootNamespace, trustDomainAlias }, { disk, clock }) {
    const options = optionsOf({ compat, rootNamespace, trustDomainAlias }) ?? {}
    valid(await policyFiles(disk, paths), options)
    const documents = await namedInside(disk, paths)
    const expires = clock.now() + expiresIn
    const signature = await signPolicySet({ documents, options }, { serial, expires }, privateKey(await disk.read(key), key))
    if (out !== '-') await disk.write(out, `${signature}\n`, false)
    return {
      value: { signature, serial, expires: formatInstant(expires), documents: documents.map(({ name }) => name) },
      text:
        out === '-'
          ? signature
          : facts([
              ['signature', out],
              ['serial', String(serial)],
              ['expires', `${formatInstant(expires)} (in ${formatDuration(expiresIn)})`],
              ['files', String(documents.length)],
            ]),
    }
  },
})

export const policyShadowStart = command({
  name: 'policy shadow start',
  summary: 'try a whole set beside the one in force: every proxy counts how it would decide, and enforces nothing of it',
  flags: z.strictObject({
    ...serverSocket,
    ...readingFlags,
    paths,
    prune: z.boolean().default(false).describe('leave out what is in force and not among these files'),
  }),
  positional: pathsArgument,
  examples: ['vidimus policy shadow start --prune policies/'],
  async run({ serverSocket, paths, prune, ...reading }, { disk, stop, clock }) {
    const options = optionsOf(reading)
    valid(await policyFiles(disk, paths), options)
    const documents = await namedInside(disk, paths)
    await using server = connectAdmin(serverSocket)
    const tried = await server.shadow.start({ documents, prune, ...(options && { options }) }, within(stop))
    const before = await server.policies.list(within(stop))
    const compared = compareSets(before, withTexts(tried, [...before.documents, ...documents]), clock.now())
    const { version } = tried
    const names = tried.documents.map(({ name }) => name)
    return {
      value: { version, documents: names, diff: compared.value },
      text: `${counted(names.length, 'file')} tried as version ${version.slice(0, 16)}: \`vidimus policy shadow report\` says how verdicts differ\n\n${compared.text}`,
    }
  },
})

export const policyShadowReport = command({
  name: 'policy shadow report',
  summary: 'show how the set that is tried would have decided, beside what was decided',
  flags: z.strictObject({
    ...serverSocket,
    failOnChange: z.boolean().default(false).describe('exit with 1 if any request would have been decided otherwise'),
  }),
  async run({ serverSocket, failOnChange }, { stop }) {
    await using server = connectAdmin(serverSocket)
    return shownReport(await server.shadow.report(within(stop)), failOnChange)
  },
})

export const policyShadowStop = command({
  name: 'policy shadow stop',
  summary: 'end the trial, and show what was seen',
  flags: z.strictObject(serverSocket),
  async run({ serverSocket }, { stop }) {
    await using server = connectAdmin(serverSocket)
    return shownReport(await server.shadow.stop(within(stop)), false)
  },
})

/** The differences, the most frequent first; then how many were decided alike. */
function shownReport({ candidate, counts, unlisted, agents }: SeenInShadow, failOnChange: boolean): Shown {
  const changed = counts.filter(({ allowed, candidateAllows }) => allowed !== candidateAllows)
  const alike = counts.filter(({ allowed, candidateAllows }) => allowed === candidateAllows).reduce((sum, { count }) => sum + count, 0)
  const differ = changed.reduce((sum, { count }) => sum + count, 0)
  const rows = changed.map(({ candidateAllows, count, workload, rule, peer, method, path }) => [
    candidateAllows ? 'newly allowed' : 'newly denied',
    String(count),
    workload,
    rule === '' ? 'no rule allows it' : rule,
    [peer === '' ? 'nobody' : peer, method, path].join(' ').trim(),
  ])
  const told = [
    candidate
      ? `version ${candidate.version.slice(0, 16)}, tried${candidate.appliedAt === undefined ? '' : ` since ${formatInstant(candidate.appliedAt)}`}`
      : 'no set is tried; policies on dry run are counted all the same',
    `${counted(differ + alike + unlisted, 'request')} at ${counted(agents, 'agent')}: ${differ} would be decided otherwise, ${alike} alike${unlisted > 0 ? `, ${unlisted} not told apart` : ''}`,
    ...(rows.length === 0 ? [] : ['', table(['CHANGE', 'REQUESTS', 'WORKLOAD', 'BY', 'FOR EXAMPLE'], rows)]),
  ]
  return {
    value: {
      ...(candidate && { candidate: { version: candidate.version, documents: candidate.documents.map(({ name }) => name) } }),
      agents,
      requests: differ + alike + unlisted,
      changed: differ,
      alike,
      unlisted,
      counts,
    },
    text: told.join('\n'),
    ok: !failOnChange || (differ === 0 && unlisted === 0),
  }
}

type ReadSet = Pick<AppliedSet, 'documents' | 'options'>

/** An answer to a change has names alone: their texts are those that were sent last. */
function withTexts({ documents, options }: AppliedSet, known: readonly PolicyDocument[]): ReadSet {
  const texts = new Map(known.map(({ name, text }) => [name, text]))
  return { documents: documents.map(({ name, text }) => ({ name, text: texts.get(name) ?? text })), ...(options && { options }) }
}

/** Which requests another set decides otherwise than what is in force: exactly, as `policy diff`. */
function compareSets(before: ReadSet, after: ReadSet, at: Instant): { readonly value: unknown; readonly text: string } {
  const [old, next] = [before, after].map(({ documents, options }) => checkPolicies(documents, options).set)
  if (!old || !next || old.mode !== next.mode || old.pathNormalization !== next.pathNormalization) {
    const why = 'what is in force is read in another mode: which requests would be decided otherwise is not worked out'
    return { value: { answer: 'unknown', unknown: [{ reason: 'environment', what: why }] }, text: `unknown (environment): ${why}` }
  }
  const diff = diffSets(old, next, { at })
  return { value: diffValue(diff), text: diffText(diff) }
}

/** The same names wherever the command is run: inside the folder that was given, or the file's own. */
async function namedInside(disk: Disk, paths: readonly string[]): Promise<readonly PolicyDocument[]> {
  const named: PolicyDocument[] = []
  for (const path of paths) {
    const documents = await policyFiles(disk, [path]).catch((error: unknown) => {
      if (Failure.from(error).reason === 'usage.no-file') return []
      throw error
    })
    for (const { name, text } of documents) {
      const inside = name === path ? basename(path) : relative(path, name)
      if (named.some((other) => other.name === inside))
        throw new Failure('invalid_argument', 'usage.same-name', {
          public: `two of the files would be called ${listed([inside])}: give one folder that holds both`,
        })
      named.push({ name: inside, text })
    }
  }
  return named
}

function optionsOf({ compat, rootNamespace, trustDomainAlias }: Reading): LanguageOptions | undefined {
  if (compat === undefined && rootNamespace === undefined && trustDomainAlias.length === 0) return undefined
  return {
    ...(compat !== undefined && { mode: compat }),
    ...(rootNamespace !== undefined && { rootNamespace }),
    ...(trustDomainAlias.length > 0 && { trustDomainAliases: trustDomainAlias }),
  }
}

interface Reading {
  readonly compat?: 'strict' | 'istio' | undefined
  readonly rootNamespace?: string | undefined
  readonly trustDomainAlias: readonly TrustDomain[]
}

function privateKey(pem: string, path: string): KeyObject {
  try {
    return createPrivateKey(pem)
  } catch {
    // Without the cause: a parser's message may quote what it read.
    throw new Failure('invalid_argument', 'usage.no-key', {
      public: `\`${path}\` holds no private key that can be read: expected PEM without a passphrase`,
    })
  }
}

const inForce = ({ documents, version, serial }: AppliedSet): string =>
  `${counted(documents.length, 'file')} in force as version ${version.slice(0, 16)}, serial ${serial}`

function whatChanges({ added, changed, removed, unchanged }: PolicyChanges, would: string): string {
  const told = [
    ...added.map((name) => `  ${would}added     ${name}`),
    ...changed.map((name) => `  ${would}changed   ${name}`),
    ...removed.map((name) => `  ${would}removed   ${name}`),
  ]
  return [
    ...(told.length === 0 ? ['  nothing changes'] : told),
    ...(unchanged.length === 0 ? [] : [`  ${counted(unchanged.length, 'file')} unchanged`]),
  ].join('\n')
}

const plainly = ({ added, changed, removed, unchanged }: PolicyChanges) => ({ added, changed, removed, unchanged })
