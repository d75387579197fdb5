import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tls from 'node:tls'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { issueAuthority, prepareLeaf, redeem, validity } from '../../src/ca/issuance.ts'
import { Serials } from '../../src/ca/serial.ts'
import { onThisThread } from '../../src/ca/workbench.ts'
import { systemClock } from '../../src/kernel/clock.ts'
import { hours, seconds } from '../../src/kernel/duration.ts'
import { systemRandom } from '../../src/kernel/random.ts'
import { createCertificateRequest } from '../../src/x509/certificate-request.ts'
import type { Certificate } from '../../src/x509/certificate.ts'
import { generateKeyPair, type KeyType } from '../../src/x509/key-type.ts'
import { formatPem } from '../../src/x509/pem.ts'
import type { SubjectAttributes } from '../../src/x509/subject.ts'
import { signerOf, type Signer } from '../../src/x509/signature.ts'
import { never, trustDomain, workload } from '../ca/support.ts'
import { FakeIntents } from '../fakes/intents.ts'
import { startEnvoy, typed, type RunningEnvoy } from '../support/envoy.ts'
import { askGo } from '../support/go-judge.ts'
import { describeWithPeer } from '../support/peers.ts'
import { TestCa, withFlippedBit } from '../support/test-ca.ts'

// What our CA issues, as strangers see it: every type of key, under a root of its own and under upstream roots one and two CAs away.

interface Cell {
  readonly name: string
  /** Leaf first, no root. DER. */
  readonly chain: readonly Uint8Array[]
  readonly root: Certificate
  /** PKCS #8 of the leaf. */
  readonly key: string
  /** A leaf of another trust domain that its authority signed, against its own name constraints where it has them. */
  readonly outsider: { readonly chain: readonly Uint8Array[]; readonly key: string }
}

const at = systemClock.now()
const otherDomain = 'other.test'
/** Every attribute that an entry may choose; leaves with keys on P-384 have them. */
const chosen = {
  country: 'DE',
  stateOrProvince: 'Hessen',
  locality: 'Köln',
  organization: 'Ünïcode, GmbH & Söhne',
  organizationalUnit: 'x'.repeat(64),
  commonName: 'Zahlungen 支払い',
}
const serials = new Serials(systemRandom)
const office = { intents: new FakeIntents(), workbench: onThisThread }
const leafTypes: readonly KeyType[] = ['ec-p256', 'ec-p384', 'rsa-2048']
/** Our own root may have any key; under an upstream, those that differ. */
const matrix: readonly (readonly [type: KeyType, depth: number, constrained?: boolean])[] = [
  ...(['ec-p256', 'ec-p384', 'rsa-2048', 'rsa-3072', 'rsa-4096'] as const).map((type) => [type, 1] as const),
  ...(['ec-p256', 'ec-p384', 'rsa-2048'] as const).flatMap((type) => [[type, 2] as const, [type, 3] as const]),
  ['ec-p256', 1, true],
  ['ec-p256', 2, true],
]
const nameOf = (leaf: KeyType, type: KeyType, depth: number, constrained?: boolean): string =>
  `${leaf} under ${type}, ${depth} deep${constrained ? ', within name constraints' : ''}`
const names = matrix.flatMap(([type, depth, constrained]) => leafTypes.map((leaf) => nameOf(leaf, type, depth, constrained)))
const isConstrained = (name: string): boolean => name.includes('name constraints')
let cells: ReadonlyMap<string, Cell>
let folder: string

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'vd-judges-'))
  const leaves = new Map<KeyType, { readonly csr: Uint8Array; readonly key: string }>()
  for (const type of leafTypes) {
    const { privateKey } = await generateKeyPair(type)
    const csr = await createCertificateRequest({ signer: signerOf(privateKey) })
    leaves.set(type, { csr, key: privateKey.export({ type: 'pkcs8', format: 'pem' }) })
  }
  const made: Cell[] = []
  for (const [type, depth, constrained] of matrix) {
    const { issuers, root, signer } = await authority(type, depth, constrained)
    const ca = TestCa.holding({ certificate: issuers[0] ?? root, signer }, otherDomain, at)
    const stray = await ca.leaf()
    const outsider = { chain: [stray.certificate, ...issuers].map(({ raw }) => raw), key: stray.keyPem }
    for (const [leafType, { csr, key }] of leaves) {
      const leaf = await issue(csr, issuers[0] ?? root, signer, leafType === 'ec-p384' ? chosen : undefined)
      const name = nameOf(leafType, type, depth, constrained)
      made.push({ name, chain: [leaf, ...issuers.map(({ raw }) => raw)], root, key, outsider })
    }
  }
  cells = new Map(made.map((cell) => [cell.name, cell]))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

interface Made {
  /** Our own certificate first; empty where it is a root. */
  readonly issuers: readonly Certificate[]
  readonly root: Certificate
  readonly signer: Signer
}

async function authority(type: KeyType, depth: number, constrained = false): Promise<Made> {
  const key = signerOf((await generateKeyPair(type)).privateKey)
  const order = { key, trustDomain, serial: serials.next(), at, backdate: seconds(30), lifetime: hours(12), pathLength: 0, constrained }
  if (depth === 1) return { issuers: [], root: await issueAuthority(order, office, never), signer: key }
  const upstream = await TestCa.create({ at, name: `upstream ${type} ${depth}`, keyType: type })
  const above = depth === 2 ? upstream : await upstream.intermediate({ name: 'between', ca: { pathLength: 1 } })
  const ours = await issueAuthority({ ...order, issuer: { certificate: above.certificate, key: above.signer } }, office, never)
  return { issuers: [ours, ...(depth === 2 ? [] : [above.certificate])], root: upstream.certificate, signer: key }
}

async function issue(csr: Uint8Array, certificate: Certificate, signer: Signer, subject?: SubjectAttributes): Promise<Uint8Array> {
  const lifetime = hours(1)
  const period = validity({ at, backdate: seconds(30), lifetime, earliest: certificate.notBefore, latest: certificate.notAfter })
  const issuer = { certificate, keyType: signer.keyType, authorityKeys: [] }
  const order = {
    trustDomain,
    spiffeId: workload,
    applicant: csr,
    dnsNames: ['a.example.org'],
    subject,
    serial: serials.next(),
    at,
    ...period,
  }
  const token = await prepareLeaf({ ...order, longest: lifetime, issuer }, signer, { entry: '', revision: '' }, onThisThread)
  return (await redeem(token, signer, office, never)).certificate
}

const pem = (ders: readonly Uint8Array[]): string => ders.map((der) => formatPem('CERTIFICATE', der)).join('')
/** The chain with a leaf whose signature does not hold: the last bit of it is turned over. */
const forged = ([leaf, ...issuers]: readonly Uint8Array[]): Uint8Array[] => [withFlippedBit(leaf!, leaf!.length * 8 - 1), ...issuers]
function write(name: string, text: string): string {
  const path = join(folder, `${name.replaceAll(/[^a-z0-9]/g, '-')}.pem`)
  writeFileSync(path, text)
  return path
}
const passes = (program: string, args: readonly string[]): boolean => {
  try {
    execFileSync(program, args, { stdio: 'pipe', timeout: 20_000 })
    return true
  } catch {
    return false
  }
}

describe('C-7 openssl accepts, strictly, for servers and for clients', () => {
  const verify = (chain: readonly Uint8Array[], root: Certificate, purpose: string): boolean =>
    passes('openssl', [
      ...['verify', '-x509_strict', '-purpose', purpose, '-CAfile', write('root', pem([root.raw]))],
      ...(chain.length > 1 ? ['-untrusted', write('issuers', pem(chain.slice(1)))] : []),
      write('leaf', pem(chain.slice(0, 1))),
    ])

  test.for(names)('%s', (name) => {
    const { chain, root } = cells.get(name)!
    for (const purpose of ['sslserver', 'sslclient']) expect(verify(chain, root, purpose)).toBe(true)
    expect(verify(forged(chain), root, 'sslserver'), 'a forged leaf').toBe(false)
  })

  test('the subject that an entry chose, and reads it as it was written', () => {
    for (const [name, { chain }] of cells) {
      if (!name.startsWith('ec-p384')) continue
      const args = ['x509', '-inform', 'DER', '-noout', '-subject', '-nameopt', 'utf8,sep_multiline,lname']
      const [, ...lines] = execFileSync('openssl', args, { input: chain[0]! }).toString().trimEnd().split('\n')
      expect(lines.map((line) => line.trim().split('=')[1])).toEqual(Object.values(chosen))
    }
  })

  test('C-6 an identity of another trust domain where there are no name constraints, and none where there are', () => {
    for (const [name, { root, outsider }] of cells) expect(verify(outsider.chain, root, 'sslclient'), name).toBe(!isConstrained(name))
  })

  test('and writes the same bytes', () => {
    for (const { chain, root } of cells.values()) {
      for (const der of [...chain, root.raw])
        expect(execFileSync('openssl', ['x509', '-inform', 'DER', '-outform', 'DER'], { input: der }).equals(der)).toBe(true)
    }
  })
})

describeWithPeer('certtool', 'C-7 GnuTLS accepts', ({ path }) => {
  const verify = (chain: readonly Uint8Array[], root: Certificate): boolean =>
    passes(path, [
      '--verify',
      '--load-ca-certificate',
      write('gnutls-root', pem([root.raw])),
      '--infile',
      write('gnutls-chain', pem(chain)),
    ])

  test.for(names)('%s', (name) => {
    const { chain, root } = cells.get(name)!
    expect(verify(chain, root)).toBe(true)
    expect(verify(forged(chain), root), 'a forged leaf').toBe(false)
  })

  test('C-6 an identity of another trust domain, for it does not evaluate constraints on URIs', () => {
    for (const [name, { root, outsider }] of cells) expect(verify(outsider.chain, root), name).toBe(true)
  })

  test('and writes the same bytes', () => {
    for (const { chain } of cells.values())
      expect(execFileSync(path, ['--certificate-info', '--inder', '--outder'], { input: chain[0]!, stdio: 'pipe' }).equals(chain[0]!)).toBe(
        true,
      )
  })
})

describeWithPeer('go-spiffe', 'C-7 the X.509 of Go accepts, by go-spiffe,', (found) => {
  test('every certificate of the matrix, and no forged one', () => {
    const ask = (how: (chain: readonly Uint8Array[]) => readonly Uint8Array[]) =>
      askGo(
        found,
        [...cells.values()].map(({ chain, root }) => ({ kind: 'x509', trustDomain, chain: how(chain), roots: [root.raw] })),
      )
    expect(ask((chain) => chain).map((answer) => answer['id'])).toEqual(names.map(() => workload))
    expect(ask(forged).filter((answer) => 'id' in answer)).toEqual([])
  })

  test('C-6 an identity of another trust domain where there are no name constraints, and none where there are', () => {
    const questions = [...cells.values()].map(
      ({ root, outsider }) => ({ kind: 'x509', trustDomain: otherDomain, chain: outsider.chain, roots: [root.raw] }) as const,
    )
    const answers = askGo(found, questions)
    expect(names.filter((_, index) => !('id' in answers[index]!))).toEqual(names.filter(isConstrained))
  })
})

describeWithPeer('envoy', 'C-7 Envoy serves with, and accepts from clients,', ({ path }) => {
  let envoy: RunningEnvoy
  beforeAll(async () => {
    envoy = await startEnvoy(path, {
      agentSocket: join(folder, 'nobody.sock'),
      listeners: [],
      ownListeners: [...cells.values()].map((cell) => listener(cell)),
    })
  })
  afterAll(() => envoy[Symbol.asyncDispose]())

  test.for(names)('%s', async (name) => {
    const { chain, key, root } = cells.get(name)!
    const stranger = cells.get(names.find((one) => cells.get(one)!.root !== root)!)!
    expect(await says(envoy.port(name), { key, cert: pem(chain), ca: pem([root.raw]) })).toBe('seen')
    expect(await says(envoy.port(name), { key: stranger.key, cert: pem(stranger.chain), ca: pem([root.raw]) }), 'a stranger').not.toBe(
      'seen',
    )
    const { outsider } = cells.get(name)!
    const seen = await says(envoy.port(name), { key: outsider.key, cert: pem(outsider.chain), ca: pem([root.raw]) })
    expect(seen === 'seen', 'an identity of another trust domain, whose root is the same').toBe(!isConstrained(name))
  })
})

/** Answers one word over HTTP to whoever has a certificate under the root of the cell. */
function listener({ name, chain, root, key }: Cell): object {
  const inline = (text: string) => ({ inline_string: text })
  return {
    name,
    address: { socket_address: { address: '127.0.0.1', port_value: 0 } },
    filter_chains: [
      {
        transport_socket: {
          name: 'envoy.transport_sockets.tls',
          typed_config: typed('envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext', {
            require_client_certificate: true,
            common_tls_context: {
              tls_certificates: [{ certificate_chain: inline(pem(chain)), private_key: inline(key) }],
              validation_context: {
                custom_validator_config: {
                  name: 'envoy.tls.cert_validator.spiffe',
                  typed_config: typed('envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig', {
                    trust_domains: [trustDomain, otherDomain].map((domain) => ({ name: domain, trust_bundle: inline(pem([root.raw])) })),
                  }),
                },
              },
            },
          }),
        },
        filters: [
          {
            name: 'envoy.filters.network.http_connection_manager',
            typed_config: typed('envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager', {
              stat_prefix: 'judge',
              route_config: {
                virtual_hosts: [
                  {
                    name: 'all',
                    domains: ['*'],
                    routes: [{ match: { prefix: '/' }, direct_response: { status: 200, body: inline('seen') } }],
                  },
                ],
              },
              http_filters: [
                { name: 'envoy.filters.http.router', typed_config: typed('envoy.extensions.filters.http.router.v3.Router', {}) },
              ],
            }),
          },
        ],
      },
    ],
  }
}

/** What a listener says to a client that verifies it too; the error where there is no connection. */
function says(port: number, identity: { readonly key: string; readonly cert: string; readonly ca: string }): Promise<string> {
  return new Promise((resolve) => {
    let heard = ''
    const socket = tls.connect({ host: '127.0.0.1', port, ...identity, servername: 'a.example.org' })
    socket.write('GET / HTTP/1.1\r\nHost: a.example.org\r\nConnection: close\r\n\r\n')
    socket.setTimeout(10_000, () => socket.destroy(new Error('no answer')))
    socket.on('data', (part) => (heard += part.toString()))
    socket.on('error', (error) => resolve(error.message))
    socket.on('close', () => resolve(heard.slice(heard.indexOf('\r\n\r\n') + 4)))
  })
}
