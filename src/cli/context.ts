/** What commands work with. Everything that needs another room is handed in by `main/cli.ts`. */
import type { Clock, Instant } from '../kernel/clock.ts'
import type { Duration } from '../kernel/duration.ts'
import type { CompiledPolicies } from '../policy/compile.ts'
import type { PolicyDocument } from '../policy/policy-set.ts'
import type { PolicyRequest } from '../policy/request.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import type { Terminal } from './output.ts'

export interface Context {
  readonly terminal: Terminal
  /** Aborts when the user interrupts. */
  readonly stop: AbortSignal
  readonly clock: Clock
  readonly disk: Disk
  readonly programs: Programs
  readonly vaults: Vaults
  readonly proxies: Proxies
  /** The agent's socket as a workload sees it; the address as `unix:///path`, or what `SPIFFE_ENDPOINT_SOCKET` says. */
  openWorkloadApi(address: string | undefined): WorkloadApi
  /** The agent's private socket. */
  openOperatorApi(socketPath: string): OperatorApi
  readonly judge: Judge
  readonly auditor: Auditor
}

/** Files as commands need them. */
export interface Disk {
  /** A text file; `-` is standard input. @throws Failure `usage.no-file` */
  read(path: string): Promise<string>
  /** The same of a file that may be no text. @throws Failure `usage.no-file` */
  readBytes(path: string): Promise<Uint8Array>
  /** The lines of a text file, as they come; `-` is standard input. @throws Failure `usage.no-file` */
  lines(path: string): AsyncIterable<string>
  /** Every `.yaml` and `.yml` file under these paths, in order of name. @throws Failure `usage.no-file` */
  yamlFiles(paths: readonly string[]): Promise<readonly PolicyDocument[]>
  /** Mode 0600 for secrets, 0644 for the rest; the directory is made. */
  write(path: string, content: string, secret: boolean): Promise<void>
}

/** How a configuration was chosen on the command line. */
export interface ConfigChoice {
  readonly path: string | undefined
  /** `key.path=value` */
  readonly overrides: readonly string[]
}

export type ProgramKind = 'server' | 'agent'

export interface Programs {
  run(kind: ProgramKind, config: ConfigChoice, stop: AbortSignal): Promise<void>
  /** The configuration as meant, with every default. @throws Failure `config.invalid` */
  effectiveConfig(kind: ProgramKind, config: ConfigChoice): Promise<object>
}

/** A right that a policy at a vault gives. */
export interface VaultRight {
  readonly path: string
  readonly capabilities: readonly string[]
  readonly purpose: string
}

/** What is asked of which vault: what a server's configuration says, or mounts by name. */
export type VaultChoice =
  | { readonly config: ConfigChoice }
  | {
      readonly mount: string
      readonly issuer: string | undefined
      readonly transit: string | undefined
      readonly keyPrefix: string
    }

/** What was looked at in a vault. */
export interface VaultFinding {
  readonly what: string
  readonly ok: boolean
  readonly text: string
  /** What would mend it. */
  readonly remedy?: string
}

export interface VaultReport {
  /** `upstream authority` or `key manager` */
  readonly role: string
  readonly address: string
  readonly findings: readonly VaultFinding[]
}

/** The vaults above and behind a server. */
export interface Vaults {
  /** The least that a policy must allow, as rights and as HCL. @throws Failure `config.*`, `usage.no-vault` */
  policy(choice: VaultChoice): Promise<{ readonly rights: readonly VaultRight[]; readonly hcl: string }>
  /** Logs in as the server would and looks at everything that it will need. @throws Failure `config.*`, `usage.no-vault` */
  check(config: ConfigChoice, signal: AbortSignal): Promise<readonly VaultReport[]>
}

/** What policies become in a proxy. */
export interface Proxies {
  /** What the filters say to a request at a workload of this trust domain; undefined where they alone do not decide. */
  allows(compiled: CompiledPolicies, request: PolicyRequest, trustDomain: TrustDomain): Promise<boolean | undefined>
  /** In order; `notes` say what the filters do not do. @throws Failure `rbac.not-enforceable` */
  filters(
    compiled: CompiledPolicies,
    options: { readonly trustDomains: readonly string[]; readonly providers: Readonly<Record<string, string>> },
  ): Promise<{ readonly http: readonly object[]; readonly network: readonly object[]; readonly notes: readonly string[] }>
}

export interface HeldX509Svid {
  readonly spiffeId: string
  readonly hint: string
  readonly serial: string
  readonly notBefore: Instant
  readonly notAfter: Instant
  readonly chainPem: string
  readonly privateKeyPem: string
}

export interface WorkloadApi extends AsyncDisposable {
  /** The first answer. `bundles` are PEM by trust domain. */
  fetchX509(signal: AbortSignal): Promise<{ readonly svids: readonly HeldX509Svid[]; readonly bundles: ReadonlyMap<string, string> }>
  /** PEM by trust domain, and JWK sets by trust domain. */
  fetchBundles(signal: AbortSignal): Promise<{ readonly x509: ReadonlyMap<string, string>; readonly jwt: ReadonlyMap<string, unknown> }>
  fetchJwt(
    audience: readonly string[],
    spiffeId: string | undefined,
    signal: AbortSignal,
  ): Promise<readonly { readonly spiffeId: string; readonly token: string; readonly hint: string }[]>
  /** Tokens with their private keys, JSON Web Keys. */
  fetchWit(
    spiffeId: string | undefined,
    signal: AbortSignal,
  ): Promise<readonly { readonly spiffeId: string; readonly token: string; readonly hint: string; readonly privateKeyJwk: string }[]>
  validateJwt(
    audience: string,
    token: string,
    signal: AbortSignal,
  ): Promise<{ readonly spiffeId: string; readonly claims: Readonly<Record<string, unknown>> }>
}

export interface ConsideredEntry {
  readonly entryId: string
  readonly spiffeId: string
  readonly missingSelectors: readonly string[]
  readonly matches: boolean
  readonly note: string
}

export interface AgentStatus {
  readonly spiffeId: string
  readonly ready: boolean
  readonly complaints: readonly string[]
  /** Further facts, in the order they are shown; JSON has them under their names in camel case. */
  readonly facts: readonly (readonly [name: string, value: string | number])[]
}

export interface OperatorApi extends AsyncDisposable {
  explainWorkload(
    pid: number,
    signal: AbortSignal,
  ): Promise<{
    readonly selectors: readonly string[]
    readonly considered: readonly ConsideredEntry[]
    readonly verdict: string
  }>
  status(signal: AbortSignal): Promise<AgentStatus>
}

/** A judgement by the rules of the SPIFFE specifications, ready to be shown. */
export interface Judgement {
  readonly value: object
  readonly text: string
  readonly junit?: string
  /** False if a rule is broken. */
  readonly ok: boolean
}

export interface ConformanceQuestion {
  /** `unix:///path`, or what `SPIFFE_ENDPOINT_SOCKET` says. */
  readonly address: string | undefined
  /** Sections (`J`) and rules (`J-11`); none means all. */
  readonly selection: readonly string[]
  readonly audience: string
  /** For every check. */
  readonly timeout: Duration
  readonly progress: (text: string) => void
}

export interface Judge {
  /** Asks a Workload API about the rules. @throws Failure `usage.selection`, `endpoint.*`, `rpc.unavailable` */
  conformance(question: ConformanceQuestion, stop: AbortSignal): Promise<Judgement>
  /** Everything that an input holds, each with the rules it breaks. @throws Failure `usage.not-recognised`, `usage.too-large`, `usage.trust-bundle` */
  inspect(question: InspectQuestion): Promise<readonly Inspected[]>
}

/** What `inspect` can be told that a document is meant to be. */
export const inspectableForms = [
  'certificate',
  'certificate-request',
  'jwt-svid',
  'wit-svid',
  'bundle',
  'bundle-map',
  'key-set',
  'spiffe-id',
] as const

export interface InspectQuestion {
  readonly input: Uint8Array
  /** Found out if undefined. */
  readonly form: (typeof inspectableForms)[number] | undefined
  readonly at: Instant
  /** The text of a bundle; with one, signatures and paths are verified. */
  readonly trustBundle: string | undefined
  readonly audience: string | undefined
}

export interface Inspected {
  readonly kind: string
  readonly title: string
  readonly facts: readonly (readonly [name: string, value: string])[]
  readonly flaws: readonly {
    readonly rule: string
    readonly level: string
    readonly says: string
    readonly expected: string
    readonly found: string
  }[]
}

/** Looks at an audit trail, file by file. */
export type AuditVerdict =
  | { readonly whole: true; readonly files: number; readonly lines: number; readonly last: string }
  | { readonly whole: false; readonly file: string; readonly line: number; readonly problem: string }

export interface Auditor {
  /**
   * Follows the chain of a trail through all of its files. `from` is the hash that its first line follows from, where older files are
   * kept elsewhere; `seen` are hashes that were noted before and must occur.
   * @throws Failure `usage.no-file`
   */
  verify(path: string, options: { readonly from?: string; readonly seen: readonly string[] }, stop: AbortSignal): Promise<AuditVerdict>
}
