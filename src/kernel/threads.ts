/** Other threads of this process: a pool that is asked many questions with one message, and what answers them there. */
import { parentPort, Worker } from 'node:worker_threads'
import { deadline } from './clock.ts'
import { seconds, type Duration } from './duration.ts'
import { Failure, type Category } from './failure.ts'

/** Questions and answers are plain values. Bytes travel as latin1 text: a view of a large buffer would take all of it along. */
export interface Threads<Question, Answer> extends AsyncDisposable {
  /**
   * Asks the thread that has the least to do. Questions that are asked in one turn share a message.
   * @throws Failure of whoever answers; `threads.busy`, `threads.ended`, `threads.gone`
   */
  ask(question: Question): Promise<Answer>
}

export interface ThreadsOptions {
  /** How many there may be. One is there from the beginning, another comes whenever all have more to do than they can. */
  readonly most: number
  /** How long one message may take; after that, and before twice that, its thread is ended and another is started. */
  readonly patience?: Duration
}

/** Starts a thread that runs `module`, which calls {@link answer}; it is ready. More follow as they are needed. @throws Failure `threads.ended` */
export async function openThreads<Question, Answer>(
  module: URL,
  { most, patience = seconds(30) }: ThreadsOptions,
): Promise<Threads<Question, Answer>> {
  const pool = new Pool<Question, Answer>(module, most, patience)
  try {
    await pool.start()
  } catch (error) {
    await pool[Symbol.asyncDispose]()
    throw error
  }
  return pool
}

/** Called once by the module of a thread: answers what the pool asks, for as long as the pool lives. */
export function answer(handle: (question: never) => unknown): void {
  const port = parentPort
  if (!port) throw new Error('bug: there is nobody to answer outside of a thread')
  port.on('message', ({ id, questions }: Message<never>) => {
    const reply: Reply<unknown> = { id, answers: questions.map((question) => told(() => handle(question))) }
    port.postMessage(reply)
  })
  port.postMessage(ready)
}

interface Message<Question> {
  readonly id: number
  readonly questions: readonly Question[]
}

interface Reply<Answer> {
  readonly id: number
  readonly answers: readonly Told<Answer>[]
}

type Told<Answer> =
  | { readonly answer: Answer }
  | { readonly refusal: { category: Category; reason: string; public: string; internal: Readonly<Record<string, unknown>> } }

interface Asked<Question, Answer> {
  readonly question: Question
  readonly outcome: PromiseWithResolvers<Answer>
}

class Pool<Question, Answer> implements Threads<Question, Answer> {
  readonly #module: URL
  readonly #most: number
  readonly #patience: Duration
  readonly #threads = new Set<Thread<Question, Answer>>()
  #waiting: Asked<Question, Answer>[] = []
  #isDue = false
  #isGrowing = false
  #closed = false

  constructor(module: URL, most: number, patience: Duration) {
    this.#module = module
    this.#most = most
    this.#patience = patience
  }

  async start(): Promise<void> {
    const thread = new Thread<Question, Answer>(this.#module, this.#patience, {
      onAnswer: () => this.#handOut(),
      onEnd: () => this.#ended(thread),
    })
    this.#threads.add(thread)
    await thread.ready
    this.#handOut()
  }

  ask(question: Question): Promise<Answer> {
    if (this.#waiting.length >= maxWaiting) {
      return Promise.reject(
        new Failure('resource_exhausted', 'threads.busy', { public: 'too much is waiting to be done: try again later' }),
      )
    }
    const outcome = Promise.withResolvers<Answer>()
    this.#waiting.push({ question, outcome })
    if (!this.#isDue) {
      this.#isDue = true
      queueMicrotask(() => this.#handOut())
    }
    return outcome.promise
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#threads].map((thread) => thread.end()))
    this.#refuseWaiting()
  }

  #handOut(): void {
    this.#isDue = false
    while (this.#waiting.length > 0) {
      const free = [...this.#threads]
        .filter(({ isReady, messages }) => isReady && messages < messagesAhead)
        .sort((a, b) => a.messages - b.messages)
      const [thread] = free
      if (!thread) {
        this.#grow()
        break
      }
      thread.send(this.#waiting.splice(0, Math.min(maxBatch, Math.ceil(this.#waiting.length / free.length))))
    }
    if (this.#threads.size === 0) this.#refuseWaiting()
  }

  #grow(): void {
    if (this.#closed || this.#threads.size === 0 || this.#threads.size >= this.#most || this.#isGrowing) return
    this.#isGrowing = true
    void this.start()
      .catch(() => {})
      .finally(() => (this.#isGrowing = false))
  }

  /** A thread that worked is replaced; one that never did would fail again. */
  #ended(thread: Thread<Question, Answer>): void {
    this.#threads.delete(thread)
    if (!this.#closed && thread.isReady) void this.start().catch(() => {})
    this.#handOut()
  }

  #refuseWaiting(): void {
    const gone = new Failure('unavailable', 'threads.gone', { public: 'nothing is left to do the work' })
    for (const { outcome } of this.#waiting.splice(0)) outcome.reject(gone)
  }
}

interface ThreadEvents {
  onAnswer(): void
  onEnd(): void
}

class Thread<Question, Answer> {
  readonly ready: Promise<void>
  isReady = false
  readonly #worker: Worker
  readonly #patience: Duration
  readonly #sent = new Map<number, readonly Asked<Question, Answer>[]>()
  #next = 0
  #isWatched = false

  constructor(module: URL, patience: Duration, events: ThreadEvents) {
    this.#patience = patience
    this.#worker = new Worker(module)
    const opened = Promise.withResolvers<void>()
    this.ready = opened.promise
    let problem: unknown
    this.#worker.on('message', (message: typeof ready | Reply<Answer>) => {
      if (message === ready) {
        this.isReady = true
        return opened.resolve()
      }
      this.#receive(message)
      events.onAnswer()
    })
    this.#worker.on('error', (error) => void (problem = error))
    this.#worker.on('exit', () => {
      const failure = new Failure('internal', 'threads.ended', { public: 'internal error', cause: problem })
      opened.reject(failure)
      for (const asked of this.#sent.values()) for (const { outcome } of asked) outcome.reject(failure)
      this.#sent.clear()
      events.onEnd()
    })
  }

  get messages(): number {
    return this.#sent.size
  }

  send(asked: readonly Asked<Question, Answer>[]): void {
    const id = this.#next++
    this.#sent.set(id, asked)
    if (!this.#isWatched) this.#watch()
    const message: Message<Question> = { id, questions: asked.map(({ question }) => question) }
    this.#worker.postMessage(message)
  }

  async end(): Promise<void> {
    await this.#worker.terminate()
  }

  /** One deadline at a time serves hundreds of messages a second: when it ends, those that were sent before it began must have been answered. */
  #watch(): void {
    this.#isWatched = true
    const next = this.#next
    const look = () => {
      this.#isWatched = false
      const [waiting] = this.#sent.keys()
      if (waiting === undefined) return
      if (waiting < next) void this.end()
      else this.#watch()
    }
    deadline(this.#patience).addEventListener('abort', look, { once: true })
  }

  #receive({ id, answers }: Reply<Answer>): void {
    const asked = this.#sent.get(id) ?? []
    this.#sent.delete(id)
    for (const [index, { outcome }] of asked.entries()) {
      const got = answers[index]
      if (got && 'answer' in got) outcome.resolve(got.answer)
      else outcome.reject(failureOf(got?.refusal))
    }
  }
}

function told<Answer>(deed: () => Answer): Told<Answer> {
  try {
    return { answer: deed() }
  } catch (thrown) {
    const { category, reason, message, internal } = Failure.from(thrown)
    return { refusal: { category, reason, public: message, internal } }
  }
}

function failureOf(refusal: Extract<Told<never>, { refusal: unknown }>['refusal'] | undefined): Failure {
  if (!refusal) return new Failure('internal', 'threads.no-answer', { public: 'internal error' })
  return new Failure(refusal.category, refusal.reason, refusal)
}

const ready = 'ready'
/** Enough that a message costs little beside what it carries, and few enough that nobody waits long behind others. */
const maxBatch = 32
/** So that a thread finds the next message when it has done with one. */
const messagesAhead = 2
const maxWaiting = 8192
