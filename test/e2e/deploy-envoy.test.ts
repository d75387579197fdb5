import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { describeWithPeer } from '../support/peers.ts'

describeWithPeer('envoy', 'the bootstrap in deploy/envoy', (peer) => {
  test('Envoy finds nothing wrong with it', async () => {
    const { stdout, stderr } = await promisify(execFile)(peer.path, ['--mode', 'validate', '-c', 'deploy/envoy/sidecar.yaml', '--disable-hot-restart'])
    expect(`${stdout}${stderr}`).toContain("configuration 'deploy/envoy/sidecar.yaml' OK")
  })
})
