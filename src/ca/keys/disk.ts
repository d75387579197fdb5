import { createPrivateKey, type KeyObject } from 'node:crypto'
import { lstat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { fromUtf8, utf8 } from '../../kernel/bytes.ts'
import { secretReference } from '../../kernel/driver.ts'
import { Failure } from '../../kernel/failure.ts'
import { generateKeyPair } from '../../x509/key-type.ts'
import { formatPem, parsePem } from '../../x509/pem.ts'
import { signerOf } from '../../x509/signature.ts'
import { demandId, keyManager, type ManagedKey } from '../key-manager.ts'
import { isEnvelope, openEnvelopes, type EnvelopeKey, type Envelopes } from './disk-envelope.ts'

/** Keeps each key in a file of its own (mode 0600) in a directory that only its owner enters: PKCS #8, encrypted if a secret is given for it (C-25). */
export const disk = keyManager({
  kind: 'disk',
  config: z.strictObject({
    directory: z.string().min(1),
    /** What the files are encrypted with: a passphrase, or a key of 32 bytes. Files that are not encrypted yet become so when they are read. */
    encryption: z.union([z.strictObject({ passphrase: secretReference }), z.strictObject({ key: secretReference })]).optional(),
  }),
  example: { directory: '/var/lib/vidimus/server/keys', encryption: { passphrase: { file: '/etc/vidimus/keys-passphrase' } } },

  async open({ directory, encryption }, { files, log, random, secrets }) {
    await files.privateDirectory(directory)
    const envelopes = encryption && (await openAndTry(encryption, { random, secrets }))
    const pathOf = (id: string): string => {
      demandId(id)
      return join(directory, `${id}.pem`)
    }
    /** A JavaScript process cannot promise to forget; it can at least not keep this copy (C-26). */
    const write = async (id: string, der: Uint8Array): Promise<void> => {
      let content: Uint8Array | undefined
      try {
        content = envelopes ? await envelopes.seal(id, der) : utf8(formatPem('PRIVATE KEY', der))
        await files.writeAtomically(pathOf(id), content)
      } finally {
        der.fill(0)
        content?.fill(0)
      }
    }
    return {
      async create(id, type) {
        demandId(id)
        const { privateKey } = await generateKeyPair(type)
        await write(id, privateKey.export({ type: 'pkcs8', format: 'der' }))
        return keyOf(id, privateKey)
      },
      async find(id) {
        const path = pathOf(id)
        const content = await files.read(path)
        if (!content) return undefined
        let der: Uint8Array | undefined
        try {
          await demandPrivate(path)
          const sealed = isEnvelope(content)
          der = sealed ? await unsealed(id, path, content, envelopes) : bare(path, content)
          const key = keyIn(path, der)
          if (envelopes && !sealed) {
            await write(id, der)
            log.info('a key on disk is encrypted from now on', { path })
          }
          return keyOf(id, key)
        } finally {
          der?.fill(0)
          content.fill(0)
        }
      },
      async remove(id) {
        await files.remove(pathOf(id))
      },
      async [Symbol.asyncDispose]() {},
    }
  },
})

/** A secret that cannot be used is told at the start, not when the next key is made. */
async function openAndTry(encryption: EnvelopeKey, ports: Parameters<typeof openEnvelopes>[1]): Promise<Envelopes> {
  const envelopes = openEnvelopes(encryption, ports)
  await envelopes.open('try', await envelopes.seal('try', utf8('try')))
  return envelopes
}

const keyOf = (id: string, privateKey: KeyObject): ManagedKey => ({ id, ...signerOf(privateKey) })

/** A key that others can read, or a link to one elsewhere, is refused rather than used. */
async function demandPrivate(path: string): Promise<void> {
  const info = await lstat(path)
  if (info.isFile() && (info.mode & 0o077) === 0) return
  throw new Failure('failed_precondition', 'keys.loose-permissions', {
    public: `\`${path}\` is not a file that only its owner can read: expected mode 0600; run \`chmod 600 ${path}\``,
  })
}

async function unsealed(id: string, path: string, content: Uint8Array, envelopes: Envelopes | undefined): Promise<Uint8Array> {
  if (envelopes) return envelopes.open(id, content)
  throw new Failure('failed_precondition', 'keys.encrypted', {
    public: `\`${path}\` is encrypted, and \`keyManager.encryption\` says with what: it is not configured`,
  })
}

function bare(path: string, content: Uint8Array): Uint8Array {
  try {
    return parsePem(fromUtf8(content), { label: 'PRIVATE KEY', max: 1 })[0]!.der
  } catch (cause) {
    throw unreadable(path, cause)
  }
}

function keyIn(path: string, der: Uint8Array): KeyObject {
  try {
    return createPrivateKey({ key: Buffer.from(der.buffer, der.byteOffset, der.byteLength), format: 'der', type: 'pkcs8' })
  } catch (cause) {
    throw unreadable(path, cause)
  }
}

const unreadable = (path: string, cause: unknown): Failure =>
  new Failure('failed_precondition', 'keys.unreadable', { public: `\`${path}\` does not hold a private key in PKCS #8`, cause })
