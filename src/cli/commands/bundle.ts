import { z } from 'zod'
import { connectAdmin } from '../../server-api/client.ts'
import { formatBundleDocument, formatBundlePem } from '../../spiffe/bundle-document.ts'
import { command } from '../command.ts'
import { serverSocket, within } from '../flags.ts'

export const bundleShow = command({
  name: 'bundle show',
  summary: 'print the trust bundle',
  flags: z.strictObject({
    ...serverSocket,
    format: z.enum(['pem', 'spiffe']).default('pem').describe('certificates in PEM, or the SPIFFE bundle document').meta({ value: 'form' }),
  }),
  examples: ['vidimus bundle show > bundle.pem', 'vidimus bundle show --format spiffe'],
  async run({ serverSocket, format }, { stop }) {
    await using server = connectAdmin(serverSocket)
    const bundle = await server.bundle.find(within(stop))
    const document = formatBundleDocument(bundle)
    const pem = formatBundlePem(bundle)
    return {
      value: { trustDomain: bundle.trustDomain, pem, document: JSON.parse(document) as unknown },
      text: format === 'pem' ? pem : document,
    }
  },
})
