/** Answers in capitals, and does what a thread should not do when it is told to. */
import { threadId } from 'node:worker_threads'
import { Failure } from '../../src/kernel/failure.ts'
import { answer } from '../../src/kernel/threads.ts'

answer((question: string): string => {
  switch (question) {
    case 'refuse':
      throw new Failure('permission_denied', 'test.refused', { public: 'no', internal: { because: 'it says so' } })
    case 'throw':
      throw new TypeError('a bug')
    case 'die':
      process.exit(3)
      break
    case 'hang':
      for (;;) Math.sqrt(2)
    case 'which':
      return String(threadId)
    default:
      return question.toUpperCase()
  }
})
