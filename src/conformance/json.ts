import { Failure } from '../kernel/failure.ts'
import { parseJsonObject } from '../spiffe/json.ts'
import type { JsonDocument } from './documents.ts'

/** Reads a document strictly: no name twice, no number rounded. @throws Failure `json.*` */
export function readJson(text: string): JsonDocument {
  return { value: parseJsonObject(text, { maxLength: maxDocumentLength, bigIntegers: true }) }
}

/** {@link readJson} of what came over the wire. @throws Failure `conformance.malformed` */
export function jsonInAnswer(bytes: Uint8Array): JsonDocument {
  try {
    return readJson(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    const text = cause instanceof Failure ? cause.message : 'it is not UTF-8'
    throw new Failure('invalid_argument', 'conformance.malformed', { public: text, cause })
  }
}

const maxDocumentLength = 4 * 1024 * 1024
