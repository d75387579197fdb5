import { z } from 'zod'
import { formatInstant, parseInstant } from '../../kernel/clock.ts'
import { Failure } from '../../kernel/failure.ts'
import { command } from '../command.ts'
import { type Inspected, inspectableForms } from '../context.ts'
import { parsed, positional } from '../flags.ts'
import { counted, facts } from '../output.ts'

const moment = parsed((text) => {
  const at = parseInstant(text)
  if (at !== undefined) return at
  throw new Failure('invalid_argument', 'usage.wrong', {
    public: `expected a moment like \`2026-01-01T00:00:00Z\`, found \`${text.slice(0, 40)}\``,
  })
})

export const inspect = command({
  name: 'inspect',
  summary: 'say what a certificate, request, token, bundle or key set is, and which rules of the SPIFFE specifications it breaks',
  positional: [{ name: 'file', help: 'the document, in PEM, DER, JSON or as text; `-` for standard input' }],
  flags: z.strictObject({
    file: positional(z.string()),
    as: z.enum(inspectableForms).optional().describe('what it is meant to be; found out where nothing is said').meta({ value: 'form' }),
    trustBundle: z
      .string()
      .optional()
      .describe('verify it against this bundle: PEM, a bundle document, a bundle map or a JWK set')
      .meta({ value: 'path' }),
    audience: z.string().min(1).optional().describe('the audience that a JWT-SVID must be for').meta({ value: 'name' }),
    at: moment.optional().describe('the moment at which it must be valid (default: now)').meta({ value: 'time' }),
  }),
  examples: [
    'vidimus inspect svid.0.pem --trust-bundle bundle.example.org.pem',
    'vidimus inspect token.jwt --audience orders --trust-bundle bundle.json --at 2026-01-01T00:00:00Z',
    'vidimus inspect bundle.json --output json',
  ],
  async run({ file, as, trustBundle, audience, at }, { judge, disk, clock }) {
    const found = await judge.inspect({
      input: await disk.readBytes(file),
      form: as,
      at: at ?? clock.now(),
      trustBundle: trustBundle === undefined ? undefined : await disk.read(trustBundle),
      audience,
    })
    const flaws = found.reduce((sum, one) => sum + one.flaws.length, 0)
    const end = flaws === 0 ? 'no rule is broken' : `${counted(flaws, 'rule')} broken`
    return {
      value: { at: formatInstant(at ?? clock.now()), documents: found.map(asJson), broken: flaws },
      text: [...found.map(told), end].join('\n\n'),
      ok: flaws === 0,
    }
  },
})

function told({ title, facts: pairs, flaws }: Inspected): string {
  const broken = flaws.map(
    ({ rule, level, says, expected, found }) => `breaks ${rule} (${level}): ${says}\n  expected ${expected}, found ${found}`,
  )
  return [title, facts(pairs.map(([name, value]) => [`  ${name}`, value])), ...broken].filter((part) => part !== '').join('\n')
}

const asJson = ({ facts: pairs, ...rest }: Inspected) => ({ ...rest, facts: Object.fromEntries(pairs) })
