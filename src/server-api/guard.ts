import { seconds } from '../kernel/duration.ts'
import { Failure } from '../kernel/failure.ts'
import { pathOf, type AnyHandler, type Call, type Mounted } from '../rpc/handler.ts'
import { authorize } from '../server/authorize.ts'
import type { Caller, Peer } from '../server/caller.ts'
import type { Server } from '../server/server.ts'
import { subjectsOf } from './subjects.ts'

type Needs = Pick<Server, 'clock' | 'log' | 'ca' | 'nodes' | 'entries' | 'entryCache' | 'policies' | 'audit' | 'adminIds'>

/**
 * Puts authorisation around every method of a service. Handlers are written for a {@link Caller}, whom only `authorize` makes,
 * so that there is no way to serve a method that nobody decided about.
 */
export function guard(server: Needs, { service, handlers }: Mounted<Caller>): Mounted<Peer> {
  const guarded = service.methods.map((method) => [method.localName, guardMethod(server, method, handlers[method.localName]!)] as const)
  return { service, handlers: Object.fromEntries(guarded) }
}

function guardMethod(server: Needs, method: Mounted<Caller>['service']['methods'][number], handler: AnyHandler<Caller>): AnyHandler<Peer> {
  const path = pathOf(method)
  if (method.methodKind === 'unary' || method.methodKind === 'client_streaming') {
    return async (input, call) => {
      const subjects = await subjectsOf(server, input)
      const peer = await authorize(server, { peer: call.peer, method: path, subjects })
      const deed = amountsTo.get(path)
      if (deed !== undefined) await authorize(server, { peer: call.peer, method: deed, subjects })
      return (await handler(input, { ...call, peer })) as object
    }
  }
  return (input, call) => stream(server, path, handler, input, call)
}

/** A stream may outlive the right to it: the right is looked at again and again, and ends it. */
async function* stream(
  server: Needs,
  method: string,
  handler: AnyHandler<Caller>,
  input: never,
  call: Call<Peer>,
): AsyncGenerator<object, void, void> {
  const about = { peer: call.peer, method, subjects: await subjectsOf(server, input) }
  const peer = await authorize(server, about)
  const ended = new AbortController()
  const signal = AbortSignal.any([call.signal, ended.signal])
  const watching = watch(server, about, ended, signal)
  try {
    yield* handler(input, { ...call, peer, signal }) as AsyncIterable<object>
    if (ended.signal.aborted) throw ended.signal.reason
  } finally {
    ended.abort()
    await watching
  }
}

async function watch(server: Needs, about: Parameters<typeof authorize>[1], ended: AbortController, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await server.clock.sleep(interval, signal).catch(() => {})
    if (signal.aborted) return
    try {
      await authorize(server, { ...about, isUnderWay: true })
    } catch (error) {
      const failure = Failure.from(error)
      // A store that is away takes no rights away.
      const isOver = failure.category === 'permission_denied' || failure.category === 'unauthenticated'
      if (isOver || failure.reason === 'server.agent-superseded') ended.abort(failure)
    }
  }
}

/** Methods of ours that do what one of SPIRE's does, and more: a policy about that one is no less about ours. */
const amountsTo: ReadonlyMap<string, string> = new Map([
  ['/vidimus.api.entry.v1.AmendedEntries/BatchCreateAmended', '/spire.api.server.entry.v1.Entry/BatchCreateEntry'],
  ['/vidimus.api.entry.v1.AmendedEntries/BatchUpdateAmended', '/spire.api.server.entry.v1.Entry/BatchUpdateEntry'],
])
const interval = seconds(2)
