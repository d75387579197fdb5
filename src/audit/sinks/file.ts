import { z } from 'zod'
import { utf8 } from '../../kernel/bytes.ts'
import { auditSink } from '../trail.ts'

/** Appends to a file (mode 0600), one record a line. A line that a power cut tore is ended, so that the next one is whole. */
export const file = auditSink({
  kind: 'file',
  config: z.strictObject({ path: z.string().min(1) }),
  example: { path: '/var/lib/vidimus/server/audit.log' },

  async open(config, { files }) {
    const tail = await files.readTail(config.path, tailBytes)
    const out = await files.appendTo(config.path)
    if (tail.length > 0 && !tail.endsWith('\n')) await out.append(utf8('\n'))
    return {
      append: (lines) => out.append(utf8(`${lines.join('\n')}\n`)),
      last: () => Promise.resolve(lastWholeLine(tail)),
      [Symbol.asyncDispose]: () => out[Symbol.asyncDispose](),
    }
  },
})

function lastWholeLine(tail: string): string | undefined {
  return tail
    .slice(0, tail.lastIndexOf('\n') + 1)
    .split('\n')
    .findLast((line) => line.startsWith('{'))
}

/** Longer than any record. */
const tailBytes = 64 * 1024
