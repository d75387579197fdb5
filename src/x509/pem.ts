import { Failure } from '../kernel/failure.ts'
import { type Certificate, parseCertificate } from './certificate.ts'

/** One block of textual encoding (RFC 7468). */
export interface PemBlock {
  readonly label: string
  readonly der: Uint8Array
}

export interface PemExpectation {
  /** What every block must be; anything when left out. */
  readonly label?: string
  /** How many blocks there may be; 256 when left out. */
  readonly max?: number
}

/**
 * Reads every block, at least one. Text outside of blocks is skipped; inside a block there is base64 and nothing else.
 * Time grows with the length of the text only (rule R-28).
 * @throws Failure `pem.no-block`, `pem.malformed`, `pem.unexpected-label`, `pem.too-many-blocks`, `pem.too-long`
 */
export function parsePem(text: string, { label, max = 256 }: PemExpectation = {}): PemBlock[] {
  if (text.length > maxTextLength) throw refusal('too-long', `a PEM text has ${text.length} characters: at most ${maxTextLength}`)
  const blocks: PemBlock[] = []
  let open: Boundary | undefined
  for (let line = nextBoundary(text, 0); line; line = nextBoundary(text, line.end)) {
    if ((line.verb === 'BEGIN') === (open !== undefined) || (open && open.label !== line.label)) {
      throw refusal('malformed', 'BEGIN and END of PEM blocks do not match')
    }
    if (open) {
      blocks.push({ label: open.label, der: decode(text.slice(open.end, line.start)) })
      open = undefined
      continue
    }
    if (label !== undefined && line.label !== label)
      throw refusal('unexpected-label', `found a PEM block \`${line.label}\`: expected \`${label}\``)
    if (blocks.length >= max) throw refusal('too-many-blocks', `there are more than ${max} PEM blocks`)
    open = line
  }
  if (open) throw refusal('malformed', 'a PEM block does not end')
  if (blocks.length === 0) throw refusal('no-block', label === undefined ? 'there is no PEM block' : `there is no PEM block \`${label}\``)
  return blocks
}

/** One block, 64 characters a line, with a line end after the last (RFC 7468 section 2). */
export function formatPem(label: string, der: Uint8Array): string {
  const body = Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString('base64')
  return `-----BEGIN ${label}-----\n${body.replace(/.{1,64}/g, '$&\n')}-----END ${label}-----\n`
}

/** Every certificate of a text, at least one, and nothing but certificates. @throws Failure `pem.*`, `der.*`, `x509.*` */
export function parseCertificatesPem(text: string): Certificate[] {
  return parsePem(text, { label: 'CERTIFICATE' }).map(({ der }) => parseCertificate(der))
}

interface Boundary {
  readonly verb: 'BEGIN' | 'END'
  readonly label: string
  readonly start: number
  /** Of the line, without its end. */
  readonly end: number
}

/** The next line that begins with five dashes, which must then be a boundary. Dashes within a line are text like any other. */
function nextBoundary(text: string, from: number): Boundary | undefined {
  for (let start = text.indexOf(dashes, from); start !== -1; start = text.indexOf(dashes, start)) {
    const lineEnd = text.indexOf('\n', start)
    const end = lineEnd === -1 ? text.length : lineEnd
    if (start === 0 || text[start - 1] === '\n') return boundary(text.slice(start, end), start, end)
    start = end
  }
  return undefined
}

function boundary(line: string, start: number, end: number): Boundary {
  const [, verb, label] = boundaryPattern.exec(line) ?? []
  if ((verb !== 'BEGIN' && verb !== 'END') || label === undefined) {
    throw refusal('malformed', 'a line begins with dashes and is neither BEGIN nor END of a PEM block')
  }
  return { verb, label, start, end }
}

/** Base64 of RFC 4648 section 4 in its one canonical form: padded, and no bits set that stand for nothing. Line ends may stand anywhere. */
function decode(lines: string): Uint8Array {
  const body = lines.replaceAll('\r\n', '\n').replaceAll('\n', '')
  const der = Buffer.from(body, 'base64')
  if (body === '' || der.toString('base64') !== body) throw refusal('malformed', 'a PEM block holds something else than base64')
  return new Uint8Array(der)
}

function refusal(what: string, text: string): Failure {
  return new Failure('invalid_argument', `pem.${what}`, { public: text })
}

const boundaryPattern = /^-----(BEGIN|END) ([A-Z0-9](?:[A-Z0-9 ]{0,62}[A-Z0-9])?)-----\r?$/
const dashes = '-----'
/** 256 certificates of the largest size are not expected; a bundle of system roots takes 250,000 characters. */
const maxTextLength = 4 * 1024 * 1024
