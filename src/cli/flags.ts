/** Flags that several commands share. */
import { z } from 'zod'
import { deadline } from '../kernel/clock.ts'
import { seconds } from '../kernel/duration.ts'

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
  agentAdminSocket: z.string().default('/run/vidimus/agent/private/admin.sock').describe("the agent's private socket").meta({ value: 'path' }),
}

/** Where workloads connect. */
export const workloadSocket = {
  socket: z.string().optional().describe('the Workload API; by default $SPIFFE_ENDPOINT_SOCKET').meta({ value: 'unix:///path' }),
}

/** A key of the schema that is given by position, not as a flag. */
export const positional = <T>(schema: z.ZodType<T>): z.ZodType<T> => schema.meta({ positional: true })

/** How long a command waits for an answer. */
export const within = (stop: AbortSignal): AbortSignal => deadline(seconds(30), stop)
