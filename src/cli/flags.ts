/** Flags that several commands share. */
import { z } from 'zod'
import { deadline } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
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

/** A whole number from 1. */
export const positive = parsed((text) => {
  if (/^[1-9]\d{0,9}$/.test(text)) return Number(text)
  throw new Failure('invalid_argument', 'usage.wrong', { public: `expected a whole number from 1, found \`${text.slice(0, 80)}\`` })
})
