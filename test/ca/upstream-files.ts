import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { formatPem } from '../../src/x509/pem.ts'
import type { TestCa } from '../support/test-ca.ts'

/** Where an upstream on disk keeps its files in a test. */
export const upstreamFiles = (folder: string) => ({
  certFile: join(folder, 'upstream.pem'),
  keyFile: join(folder, 'upstream.key'),
  bundleFile: join(folder, 'roots.pem'),
})

/** Writes what an operator would: an issuing CA, and the root above it. */
export async function writeUpstream(folder: string, issuer: TestCa, ...roots: readonly TestCa[]): Promise<void> {
  const { certFile, keyFile, bundleFile } = upstreamFiles(folder)
  const pem = ({ certificate }: TestCa) => formatPem('CERTIFICATE', certificate.raw)
  await writeFile(certFile, pem(issuer))
  await writeFile(keyFile, issuer.keyPem, { mode: 0o600 })
  await writeFile(bundleFile, roots.map(pem).join(''))
}
