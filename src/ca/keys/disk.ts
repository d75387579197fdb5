import { createPrivateKey, type KeyObject } from 'node:crypto'
import { lstat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { fromUtf8, utf8 } from '../../kernel/bytes.ts'
import { Failure } from '../../kernel/failure.ts'
import { generateKeyPair } from '../../x509/key-type.ts'
import { formatPem, parsePem } from '../../x509/pem.ts'
import { signerOf } from '../../x509/signature.ts'
import { demandId, keyManager, type ManagedKey } from '../key-manager.ts'

/** Keeps each key in a file of its own (PKCS #8, mode 0600) in a directory that only its owner enters. */
export const disk = keyManager({
  kind: 'disk',
  config: z.strictObject({ directory: z.string().min(1) }),
  example: { directory: '/var/lib/vidimus/server/keys' },

  async open({ directory }, { files }) {
    await files.privateDirectory(directory)
    const pathOf = (id: string): string => {
      demandId(id)
      return join(directory, `${id}.pem`)
    }
    return {
      async create(id, type) {
        const path = pathOf(id)
        const { privateKey } = await generateKeyPair(type)
        const der = privateKey.export({ type: 'pkcs8', format: 'der' })
        await files.writeAtomically(path, utf8(formatPem('PRIVATE KEY', der)))
        // A JavaScript process cannot promise to forget; it can at least not keep this copy (C-26).
        der.fill(0)
        return keyOf(id, privateKey)
      },
      async find(id) {
        const path = pathOf(id)
        const content = await files.read(path)
        if (!content) return undefined
        await demandPrivate(path)
        return keyOf(id, read(path, content))
      },
      async remove(id) {
        await files.remove(pathOf(id))
      },
      async [Symbol.asyncDispose]() {},
    }
  },
})

const keyOf = (id: string, privateKey: KeyObject): ManagedKey => ({ id, ...signerOf(privateKey) })

/** A key that others can read, or a link to one elsewhere, is refused rather than used. */
async function demandPrivate(path: string): Promise<void> {
  const info = await lstat(path)
  if (info.isFile() && (info.mode & 0o077) === 0) return
  throw new Failure('failed_precondition', 'keys.loose-permissions', {
    public: `\`${path}\` is not a file that only its owner can read: expected mode 0600; run \`chmod 600 ${path}\``,
  })
}

function read(path: string, content: Uint8Array): KeyObject {
  try {
    const [block] = parsePem(fromUtf8(content), { label: 'PRIVATE KEY', max: 1 })
    return createPrivateKey({ key: Buffer.from(block!.der), format: 'der', type: 'pkcs8' })
  } catch (cause) {
    throw new Failure('failed_precondition', 'keys.unreadable', { public: `\`${path}\` does not hold a private key in PKCS #8`, cause })
  }
}
