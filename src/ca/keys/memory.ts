import { z } from 'zod'
import { generateKeyPair } from '../../x509/key-type.ts'
import { signerOf } from '../../x509/signature.ts'
import { demandId, keyManager, type ManagedKey } from '../key-manager.ts'

/** Keeps keys in this process: they end with it, and so do the authorities made of them. */
export const memory = keyManager({
  kind: 'memory',
  config: z.strictObject({}),
  example: {},

  async open() {
    const held = new Map<string, ManagedKey>()
    return {
      async create(id, type) {
        demandId(id)
        const { privateKey } = await generateKeyPair(type)
        const key = { id, ...signerOf(privateKey) }
        held.set(id, key)
        return key
      },
      async find(id) {
        return held.get(id)
      },
      async remove(id) {
        held.delete(id)
      },
      async [Symbol.asyncDispose]() {
        held.clear()
      },
    }
  },
})
