export const utf8 = (text: string): Uint8Array => Buffer.from(text, 'utf8')
/** Decodes UTF-8 and throws a TypeError where it is malformed. */
export const fromUtf8 = (bytes: Uint8Array): string => strictUtf8.decode(bytes)

export const hex = (bytes: Uint8Array): string => view(bytes).toString('hex')
export const fromHex = (text: string): Uint8Array => Buffer.from(text, 'hex')

export const base64 = (bytes: Uint8Array): string => view(bytes).toString('base64')
export const base64url = (bytes: Uint8Array): string => view(bytes).toString('base64url')
export const fromBase64url = (text: string): Uint8Array => Buffer.from(text, 'base64url')

/** Equal by value; stops at the first difference, so not for secrets: those are compared by their hashes. */
export const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => view(a).equals(view(b))

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(parts)
}

/** A Buffer over the same memory. */
function view(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true })
