/**
 * A PKCS #11 module, called natively (OASIS PKCS #11 2.40): the few functions that keep and use keys.
 * Only the thread of `pkcs11-thread.ts` loads it, because its calls hold up whoever makes them.
 */
import koffi from 'koffi'
import { Failure } from '../../kernel/failure.ts'

export type Handle = number | bigint

/** An attribute with its value, as a template says it. */
export type Attribute = readonly [type: number, value: Uint8Array]

/** Each call throws Failure `keys.*` for whatever the module answers but `CKR_OK`. */
export interface Pkcs11 {
  initialize(): void
  finalize(): void
  /** The slots that hold a token now, with the label of each. */
  tokens(): readonly { readonly slot: Handle; readonly label: string }[]
  openSession(slot: Handle): Handle
  login(session: Handle, pin: string): void
  find(session: Handle, template: readonly Attribute[]): readonly Handle[]
  /** The values of these attributes; undefined for those that the object does not have or does not show. */
  read(session: Handle, object: Handle, types: readonly number[]): readonly (Uint8Array | undefined)[]
  generate(session: Handle, mechanism: number, publicKey: readonly Attribute[], privateKey: readonly Attribute[]): void
  makeSignature(session: Handle, mechanism: number, key: Handle, data: Uint8Array): Uint8Array
  destroy(session: Handle, object: Handle): void
}

/** @throws Failure `keys.no-module` */
export function loadModule(path: string): Pkcs11 {
  const call = functionsOf(path)
  return {
    initialize: () => call.initialize(null),
    finalize: () => call.finalize(null),
    tokens() {
      const count: Handle[] = [maxSlots]
      const slots = new BigUint64Array(maxSlots)
      call.slots(1, slots, count)
      return [...slots.subarray(0, Number(count[0]))].map((slot) => {
        const info = Buffer.alloc(infoBytes)
        call.tokenInfo(slot, info)
        return { slot, label: info.toString('utf8', 0, 32).trimEnd() }
      })
    },
    openSession(slot) {
      const session: Handle[] = [0]
      call.openSession(slot, CKF_RW_SESSION | CKF_SERIAL_SESSION, null, null, session)
      return session[0]!
    },
    login(session, pin) {
      const bytes = Buffer.from(pin, 'utf8')
      try {
        call.login(session, CKU_USER, bytes, bytes.length)
      } finally {
        bytes.fill(0)
      }
    },
    find(session, template) {
      call.findInit(session, template.map(toNative), template.length)
      try {
        const found = new BigUint64Array(maxFound)
        const count: Handle[] = [0]
        call.find(session, found, maxFound, count)
        return [...found.subarray(0, Number(count[0]))]
      } finally {
        call.findFinal(session)
      }
    },
    read: (session, object, types) => types.map((type) => readOne(call, session, object, type)),
    generate(session, mechanism, publicKey, privateKey) {
      const handles: readonly Handle[][] = [[0], [0]]
      const templates = [publicKey.map(toNative), publicKey.length, privateKey.map(toNative), privateKey.length]
      call.generate(session, mechanismOf(mechanism), ...templates, ...handles)
    },
    makeSignature(session, mechanism, key, data) {
      call.signInit(session, mechanismOf(mechanism), key)
      const signature = Buffer.alloc(maxSignature)
      const length: Handle[] = [maxSignature]
      call.signData(session, data, data.length, signature, length)
      return signature.subarray(0, Number(length[0]))
    },
    destroy: (session, object) => call.destroy(session, object),
  }
}

/** Whether what we held at the module is gone, and has to be got again (C-24). */
export const isLoss = ({ internal }: Failure): boolean => losses.has(Number(internal['rv']))
/** Whether a login was made before, by another session of this process. */
export const isLoggedIn = ({ internal }: Failure): boolean => internal['rv'] === CKR_USER_ALREADY_LOGGED_IN
/** Whether the module was prepared before, by an earlier thread of this process. */
export const isPrepared = ({ internal }: Failure): boolean => internal['rv'] === CKR_CRYPTOKI_ALREADY_INITIALIZED

type Functions = Readonly<Record<keyof typeof functions, (...args: unknown[]) => void>>

function functionsOf(path: string): Functions {
  const list = loadList(path)
  return Object.fromEntries(
    Object.entries(functions).map(([name, [place, signature]]) => {
      const type = koffi.proto(`ulong pkcs11_${name}_${++modules}(${signature})`)
      return [name, (...args: unknown[]) => demandOk(name, Number(koffi.call(list[place], type, ...args)))]
    }),
  ) as Functions
}

/** The table of functions that the module hands out; a module need not export more than the way to it. */
function loadList(path: string): readonly unknown[] {
  try {
    const library = koffi.load(path)
    libraries.add(library)
    const getList = library.func('ulong C_GetFunctionList(_Out_ void **list)')
    const at: unknown[] = [null]
    demandOk('C_GetFunctionList', Number(getList(at)))
    return (koffi.decode(at[0], functionList) as { readonly functions: readonly unknown[] }).functions
  } catch (cause) {
    throw new Failure('failed_precondition', 'keys.no-module', {
      public: `\`${path}\` is not a PKCS #11 module that can be loaded here`,
      cause,
    })
  }
}

function demandOk(name: string, rv: number): void {
  if (rv === 0) return
  const [reason, text] = refusals.get(rv) ?? ['device', 'the device refused']
  const code = `CKR 0x${rv.toString(16)}`
  throw new Failure(reason === 'device' || losses.has(rv) ? 'unavailable' : 'failed_precondition', `keys.${reason}`, {
    public: `${text} (${name}: ${code})`,
    internal: { rv },
  })
}

/** In two steps, as the standard wants it: how long, then what. */
function readOne(call: Functions, session: Handle, object: Handle, type: number): Uint8Array | undefined {
  const value = Buffer.alloc(maxAttribute)
  const template = [{ type, value, length: maxAttribute as Handle }]
  try {
    call.attributes(session, object, template, 1)
  } catch (error) {
    if (error instanceof Failure && absent.has(Number(error.internal['rv']))) return undefined
    throw error
  }
  return value.subarray(0, Number(template[0]!.length))
}

const toNative = ([type, value]: Attribute) => ({ type, value, length: value.length })

/** CK_MECHANISM without a parameter. */
function mechanismOf(mechanism: number): Uint8Array {
  const bytes = Buffer.alloc(24)
  bytes.writeBigUInt64LE(BigInt(mechanism))
  return bytes
}

koffi.struct('CK_ATTRIBUTE', { type: 'ulong', value: 'void *', length: 'ulong' })
const functionList = koffi.struct('CK_FUNCTION_LIST', { major: 'uint8', minor: 'uint8', functions: koffi.array('void *', 68) })

/** Place in CK_FUNCTION_LIST, and parameters (PKCS #11 2.40, section 5). */
const functions = {
  initialize: [0, 'void *'],
  finalize: [1, 'void *'],
  slots: [4, 'uint8 present, void *slots, _Inout_ ulong *count'],
  tokenInfo: [6, 'ulong slot, void *info'],
  openSession: [12, 'ulong slot, ulong flags, void *app, void *notify, _Out_ ulong *session'],
  login: [18, 'ulong session, ulong user, void *pin, ulong length'],
  destroy: [22, 'ulong session, ulong object'],
  attributes: [24, 'ulong session, ulong object, _Inout_ CK_ATTRIBUTE *template, ulong count'],
  findInit: [26, 'ulong session, CK_ATTRIBUTE *template, ulong count'],
  find: [27, 'ulong session, void *objects, ulong most, _Out_ ulong *count'],
  findFinal: [28, 'ulong session'],
  signInit: [42, 'ulong session, void *mechanism, ulong key'],
  signData: [43, 'ulong session, void *data, ulong length, void *signature, _Inout_ ulong *signatureLength'],
  generate: [
    59,
    'ulong session, void *mechanism, CK_ATTRIBUTE *pub, ulong pubs, CK_ATTRIBUTE *priv, ulong privs, _Out_ ulong *pubKey, _Out_ ulong *privKey',
  ],
} as const

const CKF_RW_SESSION = 2
const CKF_SERIAL_SESSION = 4
const CKU_USER = 1
const CKR_USER_ALREADY_LOGGED_IN = 0x100
const CKR_CRYPTOKI_ALREADY_INITIALIZED = 0x191

/** What an operator can do something about; everything else is `keys.device`. */
const refusals: ReadonlyMap<number, readonly [reason: string, text: string]> = new Map([
  [0x70, ['unsupported-type', 'the device does not make keys of this type']],
  [0x31, ['device-full', 'the device has no room for another key']],
  [0xa0, ['pin-incorrect', 'the PIN is wrong, and is not tried again: a few more would lock the token']],
  [0xa1, ['pin-incorrect', 'the PIN is none that the token could have']],
  [0xa4, ['pin-locked', 'the PIN is locked: the security officer of the token must set it anew']],
  [0xe0, ['token-gone', 'the token is not there']],
])

/** Device error, device removed, key or object handle invalid, session closed or unknown, token gone, not logged in, not initialised, slot unknown. */
const losses: ReadonlySet<number> = new Set([0x3, 0x30, 0x32, 0x60, 0x82, 0xb0, 0xb3, 0xe0, 0xe1, 0x101, 0x190])
/** Sensitive, or of a type that the object does not have. */
const absent: ReadonlySet<number> = new Set([0x11, 0x12])

/** Held for ever: a library that is collected is unloaded, and its functions with it. */
const libraries = new Set<unknown>()
/** Native types have names of their own. */
let modules = 0
const maxSlots = 64
const maxFound = 4
const infoBytes = 512
const maxAttribute = 2048
const maxSignature = 1024
