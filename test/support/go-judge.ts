/** The published go-spiffe library, asked whether it accepts documents. */
import { execFileSync } from 'node:child_process'
import type { FoundPeer } from '../../tools/peers/find.ts'

export type GoQuestion =
  | { readonly kind: 'id'; readonly text: string }
  | { readonly kind: 'x509'; readonly trustDomain: string; readonly chain: readonly Uint8Array[]; readonly roots: readonly Uint8Array[] }
  | { readonly kind: 'jwt'; readonly trustDomain: string; readonly text: string; readonly audience: string; readonly document: string }
  | { readonly kind: 'wit'; readonly trustDomain: string; readonly text: string; readonly document: string }
  | { readonly kind: 'bundle'; readonly trustDomain: string; readonly document: string }

/** What the library made of a document, or `refused` with its reason. */
export type GoAnswer = Readonly<Record<string, unknown>>

/** One answer a question, in order. */
export function askGo(found: FoundPeer, questions: readonly GoQuestion[]): GoAnswer[] {
  const base64 = (_name: string, value: unknown) =>
    Array.isArray(value) ? value.map((one: unknown) => (one instanceof Uint8Array ? Buffer.from(one).toString('base64') : one)) : value
  const input = questions.map((question) => `${JSON.stringify(question, base64)}\n`).join('')
  const output = execFileSync(found.path, ['judge'], { input, timeout: 30_000, maxBuffer: 1 << 24 }).toString()
  const answers = output.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as GoAnswer]))
  if (answers.length !== questions.length)
    throw new Error(`${answers.length} answers to ${questions.length} questions: ${output.slice(-500)}`)
  return answers
}
