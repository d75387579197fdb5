/** Nobody answers on a socket: said with the socket, who should listen there, and what to do. */
import { Failure, failedWith } from '../kernel/failure.ts'

/** The failure in an operator's words if a socket could not be connected to; whatever else was thrown, as it is. */
export function unanswered(thrown: unknown, flags: object): unknown {
  if (!failedWith(thrown, 'rpc.unavailable')) return thrown
  const [, code, path] = /connect (E[A-Z]+) (.+?)(?:\. Resolution note.*)?$/s.exec(String(thrown.internal['text'])) ?? []
  if (code === undefined || path === undefined) return thrown
  const [, { program, flag }] = Object.entries(listeners).find(([key]) => namesPath((flags as Record<string, unknown>)[key], path)) ?? [
    '',
    listeners.socket,
  ]
  const text =
    code === 'EACCES' || code === 'EPERM'
      ? `not permitted to connect to \`${path}\`: run this as a user who may, for example the one that \`${program}\` runs as`
      : `nobody answers on \`${path}\`: is \`${program}\` running on this machine? \`${flag}\` names another socket`
  return new Failure('unavailable', 'socket.unanswered', { public: text, internal: { code } })
}

const namesPath = (value: unknown, path: string): boolean => typeof value === 'string' && value.endsWith(path)

/** By the flag that names the socket. */
const listeners = {
  serverSocket: { program: 'vidimus server run', flag: '--server-socket' },
  agentAdminSocket: { program: 'vidimus agent run', flag: '--agent-admin-socket' },
  socket: { program: 'vidimus agent run', flag: '--socket' },
}
