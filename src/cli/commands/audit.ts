import { z } from 'zod'
import { command } from '../command.ts'
import { positional } from '../flags.ts'
import { counted } from '../output.ts'

const lineHash = z.string().regex(/^[0-9a-f]{64}$/, { error: 'expected the 64 hexadecimal digits that stand at the end of a line' })

export const auditVerify = command({
  name: 'audit verify',
  summary: 'find out whether an audit trail is as it was written: no byte changed, no line or file taken out or moved',
  flags: z.strictObject({
    path: positional(z.string()),
    from: lineHash
      .optional()
      .describe('the hash that the first line follows from, where older files are kept elsewhere')
      .meta({ value: 'hash' }),
    seen: z
      .array(lineHash)
      .default([])
      .describe('a hash that was noted before, and must occur: what was cut off at the end is found by nothing else')
      .meta({ value: 'hash' }),
  }),
  positional: [{ name: 'path', help: 'the file that is written to, or its directory; the files before it are found beside it' }],
  examples: ['vidimus audit verify /var/lib/vidimus/server/audit.log'],
  async run({ path, from, seen }, { auditor, stop }) {
    const verdict = await auditor.verify(path, { ...(from === undefined ? {} : { from }), seen }, stop)
    const text = verdict.whole
      ? `the trail is whole: ${counted(verdict.lines, 'line')} in ${counted(verdict.files, 'file')}\nlast hash: ${verdict.last}`
      : verdict.line === 0
        ? `the trail is broken: \`${verdict.file}\`: ${verdict.problem}`
        : `the trail is broken at line ${verdict.line} of \`${verdict.file}\`: ${verdict.problem}`
    return { value: verdict, text, ok: verdict.whole }
  },
})
