/** The thread that speaks to a PKCS #11 device: one session, got again when it is lost (C-24). */
import { utf8 } from '../../kernel/bytes.ts'
import { Failure } from '../../kernel/failure.ts'
import { answer } from '../../kernel/threads.ts'
import { readDer } from '../../x509/der-reader.ts'
import { bitString, encodeDer, objectIdentifier, sequence, unsignedInteger } from '../../x509/der-writer.ts'
import { keyTypes, type KeyType } from '../../x509/key-type.ts'
import { oid } from '../../x509/oid.ts'
import { fromJoseSignature } from '../../x509/signature.ts'
import { isLoggedIn, isLoss, isPrepared, loadModule, type Attribute, type Handle, type Pkcs11 } from './pkcs11-library.ts'

export interface Pkcs11Question {
  readonly module: string
  readonly token: string
  /** Given when an answer before was `keys.no-session`. */
  readonly pin?: string
  readonly deed: Pkcs11Deed
}

export type Pkcs11Deed =
  | { readonly do: 'create'; readonly label: string; readonly keyType: KeyType }
  | { readonly do: 'find'; readonly label: string }
  | { readonly do: 'remove'; readonly label: string }
  /** `digest` as latin1. */
  | { readonly do: 'sign'; readonly label: string; readonly keyType: KeyType; readonly digest: string }
  | { readonly do: 'close' }

/** Bytes as latin1. A key that is not there is undefined. */
export type Pkcs11Answer = { readonly keyType: KeyType; readonly spki: string } | { readonly signature: string } | undefined

let loaded: { readonly path: string; readonly module: Pkcs11 } | undefined
let session: Handle | undefined
const privateKeys = new Map<string, Handle>()

answer((question: Pkcs11Question): Pkcs11Answer => {
  try {
    return perform(question)
  } catch (error) {
    if (!(error instanceof Failure) || !isLoss(error)) throw error
    forget()
    throw new Failure('unavailable', 'keys.no-session', { public: error.message, internal: error.internal })
  }
})

function perform({ module: path, token, pin, deed }: Pkcs11Question): Pkcs11Answer {
  if (deed.do === 'close') return forget()
  if (loaded?.path !== path) loaded = { path, module: loadModule(path) }
  const { module } = loaded
  const isNew = session === undefined
  session ??= open(module, token, pin)
  // A token that was taken out may leave a session behind that sees nothing: only a new one is believed when it says that there is no key.
  if (!isNew && (deed.do === 'find' || deed.do === 'sign') && !isThere(module, session, deed.label)) throw lost()
  switch (deed.do) {
    case 'create':
      remove(module, session, deed.label)
      generate(module, session, deed.label, deed.keyType)
      return find(module, session, deed.label)
    case 'find':
      return find(module, session, deed.label)
    case 'remove':
      return remove(module, session, deed.label)
    case 'sign':
      return { signature: latin1(sign(module, session, deed.label, deed.keyType, Buffer.from(deed.digest, 'latin1'))) }
  }
}

function isThere(module: Pkcs11, at: Handle, label: string): boolean {
  return privateKeys.has(label) || one(module, at, label, CKO.privateKey) !== undefined
}

/** The token may be in another slot than before, so they are listed anew. */
function open(module: Pkcs11, token: string, pin: string | undefined): Handle {
  if (pin === undefined) throw lost()
  unless(isPrepared, () => module.initialize())
  const found = module.tokens().filter(({ label }) => label === token)
  if (found.length !== 1) {
    forget()
    throw new Failure('unavailable', 'keys.token-gone', { public: `${found.length} tokens are called \`${token}\`: expected 1` })
  }
  const opened = module.openSession(found[0]!.slot)
  try {
    unless(isLoggedIn, () => module.login(opened, pin))
  } catch (error) {
    forget()
    throw error
  }
  return opened
}

/** Some modules see that a token came or went only after they were ended and begun again. */
function forget(): undefined {
  session = undefined
  privateKeys.clear()
  try {
    loaded?.module.finalize()
  } catch {
    // It is gone already, which is what was wanted.
  }
}

function generate(module: Pkcs11, at: Handle, label: string, keyType: KeyType): void {
  const named = names(label)
  const { family, bits } = keyTypes[keyType]
  const publicKey: Attribute[] = [...named, [CKA.token, yes], [CKA.verify, yes]]
  if (family === 'ec') publicKey.push([CKA.ecParams, curves[keyType]!])
  else publicKey.push([CKA.modulusBits, number(bits)], [CKA.publicExponent, Buffer.of(1, 0, 1)])
  const privateKey: Attribute[] = [
    ...named,
    [CKA.token, yes],
    [CKA.private, yes],
    [CKA.sensitive, yes],
    [CKA.extractable, no],
    [CKA.sign, yes],
  ]
  module.generate(at, family === 'ec' ? CKM.ecKeyPair : CKM.rsaKeyPair, publicKey, privateKey)
}

/** @throws Failure `keys.exportable`, `keys.wrong-type`, `keys.ambiguous` */
function find(module: Pkcs11, at: Handle, label: string): Pkcs11Answer {
  const publicKey = one(module, at, label, CKO.publicKey)
  const privateKey = one(module, at, label, CKO.privateKey)
  if (publicKey === undefined || privateKey === undefined) return undefined
  const [extractable] = module.read(at, privateKey, [CKA.extractable])
  if (extractable?.[0] !== 0) throw refused('exportable', `the key \`${label}\` can leave the token: it is not used`)
  const [type, params, point, modulus, exponent] = module.read(at, publicKey, [
    CKA.keyType,
    CKA.ecParams,
    CKA.ecPoint,
    CKA.modulus,
    CKA.publicExponent,
  ])
  if (type?.[0] === CKK.ec && params && point) {
    const [keyType] = Object.entries(curves).find(([, curve]) => curve.equals(params)) ?? []
    if (keyType) return { keyType: keyType as KeyType, spki: latin1(ecPublicKey(keyType as KeyType, point)) }
  }
  if (type?.[0] === CKK.rsa && modulus && exponent) {
    const keyType = Object.values(keyTypes).find(({ family, bits }) => family === 'rsa' && bits === modulus.length * 8)?.keyType
    if (keyType) {
      const key = encodeDer(sequence(unsignedInteger(modulus), unsignedInteger(exponent)))
      return { keyType, spki: latin1(encodeDer(sequence(keyTypes[keyType].publicKeyAlgorithm, bitString(key)))) }
    }
  }
  throw refused('wrong-type', `the key \`${label}\` on the token is of a type that is none of ours`)
}

function remove(module: Pkcs11, at: Handle, label: string): undefined {
  privateKeys.delete(label)
  for (const kind of [CKO.privateKey, CKO.publicKey]) {
    for (const object of module.find(at, [[CKA.class, number(kind)], ...names(label)])) module.destroy(at, object)
  }
}

function sign(module: Pkcs11, at: Handle, label: string, keyType: KeyType, digest: Uint8Array): Uint8Array {
  let key = privateKeys.get(label)
  if (key === undefined) {
    key = one(module, at, label, CKO.privateKey)
    if (key === undefined) throw refused('gone', `the key \`${label}\` is no longer on the token`)
    privateKeys.set(label, key)
  }
  if (keyTypes[keyType].family === 'ec') return fromJoseSignature(keyType, module.makeSignature(at, CKM.ecdsa, key, digest))
  return module.makeSignature(at, CKM.rsaPkcs, key, Buffer.concat([sha256Info, digest]))
}

function one(module: Pkcs11, at: Handle, label: string, kind: number): Handle | undefined {
  const found = module.find(at, [[CKA.class, number(kind)], ...names(label)])
  if (found.length > 1) throw refused('ambiguous', `the token has ${found.length} keys called \`${label}\`: remove those that are not ours`)
  return found[0]
}

/** As the standard says it the point is an OCTET STRING in DER; some devices give it bare. */
function ecPublicKey(keyType: KeyType, point: Uint8Array): Uint8Array {
  const bare = 1 + 2 * (keyTypes[keyType].half ?? 0)
  const key = point.length === bare && point[0] === 4 ? point : readDer(point, (reader) => reader.octetString())
  return encodeDer(sequence(keyTypes[keyType].publicKeyAlgorithm, bitString(key)))
}

function unless(isFine: (failure: Failure) => boolean, deed: () => void): void {
  try {
    deed()
  } catch (error) {
    if (!(error instanceof Failure) || !isFine(error)) throw error
  }
}

const names = (label: string): readonly Attribute[] => [
  [CKA.label, utf8(label)],
  [CKA.id, utf8(label)],
]
const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1')
const lost = (): Failure =>
  new Failure('unavailable', 'keys.no-session', { public: 'there is no session with the token', internal: { rv: sessionGone } })
const refused = (what: string, text: string): Failure => new Failure('failed_precondition', `keys.${what}`, { public: text })

/** CK_ULONG. */
function number(value: number): Uint8Array {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

/** CKR_SESSION_HANDLE_INVALID. */
const sessionGone = 0xb3
const yes = Buffer.of(1)
const no = Buffer.of(0)
const curves: Partial<Record<KeyType, Buffer>> = {
  'ec-p256': Buffer.from(encodeDer(objectIdentifier(oid.prime256v1))),
  'ec-p384': Buffer.from(encodeDer(objectIdentifier(oid.secp384r1))),
}
/** DigestInfo of SHA-256 up to the digest (RFC 8017 section 9.2, note 1). */
const sha256Info = Buffer.from('3031300d060960864801650304020105000420', 'hex')

const CKO = { publicKey: 2, privateKey: 3 }
const CKK = { rsa: 0, ec: 3 }
const CKM = { rsaKeyPair: 0, rsaPkcs: 1, ecKeyPair: 0x1040, ecdsa: 0x1041 }
const CKA = {
  class: 0,
  token: 1,
  private: 2,
  label: 3,
  keyType: 0x100,
  id: 0x102,
  sensitive: 0x103,
  sign: 0x108,
  verify: 0x10a,
  modulus: 0x120,
  modulusBits: 0x121,
  publicExponent: 0x122,
  extractable: 0x162,
  ecParams: 0x180,
  ecPoint: 0x181,
}
