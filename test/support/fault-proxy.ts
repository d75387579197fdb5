/** Stands between a client and a server on the loopback, and spoils what it is told to. Knows bytes, and enough HTTP to refuse. */
import { once } from 'node:events'
import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net'

/** What happens to a connection instead of being passed on. */
export type Fault =
  | { readonly kind: 'answer'; readonly status: number; readonly headers?: Readonly<Record<string, string>>; readonly body?: string }
  /** Accepts, reads and says nothing. */
  | { readonly kind: 'stall' }
  /** Ends before a byte is answered. */
  | { readonly kind: 'cut' }
  /** Passes the request on and ends when this many bytes of the answer have passed. */
  | { readonly kind: 'cut-answer'; readonly after: number }
  /** An answer of this many bytes of JSON. */
  | { readonly kind: 'flood'; readonly bytes: number }

export class FaultProxy implements AsyncDisposable {
  /** Each connection takes the next of these; when none is left, connections are passed on. */
  faults: Fault[] = []
  /** While set, every connection meets it. */
  always: Fault | undefined
  /** How many connections there were, and how many of them were spoiled. */
  connections = 0
  spoiled = 0
  readonly #server: Server
  readonly #open = new Set<Socket>()

  private constructor(target: number) {
    this.#server = createServer((client) => this.#serve(client, target))
  }

  static async open(target: number): Promise<FaultProxy> {
    const proxy = new FaultProxy(target)
    proxy.#server.listen(0, '127.0.0.1')
    await once(proxy.#server, 'listening')
    return proxy
  }

  get address(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** Ends every connection, so that the next call needs a new one. */
  dropAll(): void {
    for (const socket of this.#open) socket.destroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.dropAll()
    this.#server.close()
    await once(this.#server, 'close')
  }

  #serve(client: Socket, target: number): void {
    this.connections++
    this.#keep(client)
    const fault = this.always ?? this.faults.shift()
    if (!fault) return this.#pass(client, target)
    this.spoiled++
    switch (fault.kind) {
      case 'stall':
        client.resume()
        return
      case 'cut':
        client.once('data', () => client.destroy())
        return
      case 'cut-answer':
        return this.#pass(client, target, fault.after)
      case 'answer':
        return answer(client, fault.status, fault.headers ?? {}, fault.body ?? '{"errors":["made by the proxy"]}')
      case 'flood':
        return answer(client, 200, {}, `{"data":{"certificate":"${'x'.repeat(fault.bytes)}"}}`)
    }
  }

  #pass(client: Socket, target: number, atMost = Infinity): void {
    const server = connect(target, '127.0.0.1')
    this.#keep(server)
    client.pipe(server)
    let passed = 0
    server.on('data', (part: Buffer) => {
      client.write(part.subarray(0, Math.max(0, atMost - passed)))
      passed += part.length
      if (passed >= atMost) client.destroySoon()
    })
    server.on('close', () => client.destroySoon())
    client.on('close', () => server.destroy())
  }

  #keep(socket: Socket): void {
    this.#open.add(socket)
    socket.on('error', () => socket.destroy()).on('close', () => this.#open.delete(socket))
  }
}

function answer(client: Socket, status: number, headers: Readonly<Record<string, string>>, body: string): void {
  client.once('data', () => {
    const lines = Object.entries({
      'content-type': 'application/json',
      'content-length': String(Buffer.byteLength(body)),
      connection: 'close',
      ...headers,
    })
    client.end(`HTTP/1.1 ${status} Made By Proxy\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n${body}`)
  })
}
