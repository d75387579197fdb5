/** Flags that several commands share. */
import { z } from 'zod'
import { deadline } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import type { LanguageOptions } from '../policy/language.ts'
import { pathNormalizations } from '../policy/normalize.ts'
import { parseTrustDomain } from '../spiffe/trust-domain.ts'
import { expected } from './wording.ts'

export const configFlags = {
  config: z.string().optional().describe('the configuration file, YAML; `-` for standard input').meta({ value: 'path' }),
  set: z.array(z.string()).default([]).describe('lay a setting over the file, as often as needed').meta({ value: 'key.path=value' }),
}

/** Where the server's operators connect. */
export const serverSocket = {
  serverSocket: z.string().default('/run/vidimus/server/private/api.sock').describe("the server's private socket").meta({ value: 'path' }),
}

/** Where the agent's operators connect. */
export const agentAdminSocket = {
  agentAdminSocket: z
    .string()
    .default('/run/vidimus/agent/private/admin.sock')
    .describe("the agent's private socket")
    .meta({ value: 'path' }),
}

/** Where workloads connect. */
export const workloadSocket = {
  socket: z.string().optional().describe('the Workload API; by default $SPIFFE_ENDPOINT_SOCKET').meta({ value: 'unix:///path' }),
}

/** A key of the schema that is given by position, not as a flag. */
export const positional = <T>(schema: z.ZodType<T>): z.ZodType<T> => schema.meta({ positional: true })

/** How long a command waits for an answer. */
export const within = (stop: AbortSignal): AbortSignal => deadline(seconds(30), stop)

/** A text that `parse` accepts; its refusal is the message. `what` says what is expected where there is no text at all. */
export const parsed = <T>(parse: (text: string) => T, what = 'a text'): z.ZodType<T, string> =>
  z.string({ error: ({ input }) => (input === undefined ? 'is missing' : expected(what, input)) }).transform((text, context) => {
    try {
      return parse(text)
    } catch (error) {
      context.addIssue({ code: 'custom', message: Failure.from(error).message })
      return z.NEVER
    }
  })

/** How policies are read. */
export const languageFlags = {
  compat: z.enum(['istio']).optional().describe('decide as Istio does, holes included; by default strictly'),
  rootNamespace: z
    .string()
    .optional()
    .describe('the namespace whose policies apply everywhere (default: istio-system)')
    .meta({ value: 'name' }),
  trustDomainAliases: z.string().optional().describe("other names of the workloads' own trust domain").meta({ value: 'name,name' }),
  pathNormalization: z.enum(pathNormalizations).optional().describe('what the proxies do to paths, with `--compat istio` (default: base)'),
}

/** The flags as the language means them. @throws Failure of the trust domain that is none */
export function asLanguageOptions({
  compat,
  rootNamespace,
  trustDomainAliases,
  pathNormalization,
}: z.infer<z.ZodObject<typeof languageFlags>>): LanguageOptions {
  const aliases = (trustDomainAliases ?? '').split(',').filter((name) => name !== '')
  return {
    mode: compat ?? 'strict',
    ...(rootNamespace === undefined ? {} : { rootNamespace }),
    ...(pathNormalization === undefined ? {} : { pathNormalization }),
    trustDomainAliases: aliases.map((name) => parseTrustDomain(name)),
  }
}

/** A whole number from 1. */
export const positive = parsed((text) => {
  if (/^[1-9]\d{0,9}$/.test(text)) return Number(text)
  throw new Failure('invalid_argument', 'usage.wrong', { public: `expected a whole number from 1, found \`${text.slice(0, 80)}\`` })
})
