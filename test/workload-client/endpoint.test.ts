import fc from 'fast-check'
import { isIP } from 'node:net'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { Failure } from '../../src/kernel/failure.ts'
import { endpointOf, endpointPath, parseEndpoint } from '../../src/workload-client/endpoint.ts'

afterEach(() => void vi.unstubAllEnvs())

describe('the address of the Workload API', () => {
  test.each([
    ['EP-8 has another scheme', 'http:///run/agent.sock'],
    ['EP-8 is written in capitals', 'UNIX:///run/agent.sock'],
    ['EP-8 is a bare path', '/run/agent.sock'],
    ['EP-8 has blanks around it', ' unix:///run/agent.sock'],
    ['EP-9 has an authority', 'unix://host/path'],
    ['EP-9 has a user', 'unix://me@/path'],
    ['EP-9 has an empty path', 'unix://'],
    ['EP-9 is the root directory', 'unix:///'],
    ['EP-9 is relative', 'unix:run/agent.sock'],
    ['EP-9 begins with four slashes', 'unix:////run/agent.sock'],
    ['EP-9 has a query', 'unix:///run/agent.sock?x=1'],
    ['EP-9 has an empty query', 'unix:///run/agent.sock?'],
    ['EP-9 has a fragment', 'unix:///run/agent.sock#x'],
    ['EP-10 has a path', 'tcp://127.0.0.1:8000/foo'],
    ['EP-10 has an empty path', 'tcp://127.0.0.1:8000/'],
    ['EP-10 has a query', 'tcp://127.0.0.1:8000?x=1'],
    ['EP-10 has a fragment', 'tcp://127.0.0.1:8000#x'],
    ['EP-10 has a user', 'tcp://me@127.0.0.1:8000'],
    ['EP-10 has a name for a host', 'tcp://localhost:8000'],
    ['EP-10 has no host', 'tcp://:8000'],
    ['EP-10 has no port', 'tcp://127.0.0.1'],
    ['EP-10 has an empty port', 'tcp://127.0.0.1:'],
    ['EP-10 has port zero', 'tcp://127.0.0.1:0'],
    ['EP-10 has a port that is too large', 'tcp://127.0.0.1:65536'],
    ['EP-10 has an address of five numbers', 'tcp://1.2.3.4.5:8000'],
    ['EP-10 has an IPv6 address without brackets', 'tcp://::1:8000'],
    ['EP-10 has an IPv4 address in brackets', 'tcp://[127.0.0.1]:8000'],
    ['EP-10 has an IPv6 zone', 'tcp://[fe80::1%eth0]:8000'],
    ['EP-10 has no authority', 'tcp:127.0.0.1:8000'],
  ])('is refused when it %s', (_what, address) => {
    expect(() => parseEndpoint(address)).toThrow(expect.objectContaining({ reason: 'endpoint.malformed', category: 'invalid_argument' }))
  })

  test('nothing but a Failure comes of any text, and what is accepted is a path or an IP address with a port', () => {
    const text = fc.oneof(
      fc.string(),
      fc.string().map((rest) => `unix://${rest}`),
      fc.string().map((rest) => `tcp://${rest}`),
      fc.ipV6().map((ip) => `tcp://[${ip}]:1`),
    )
    fc.assert(
      fc.property(text, (address) => {
        try {
          const endpoint = parseEndpoint(address)
          if (endpoint.scheme === 'unix') expect(endpoint.path.startsWith('/')).toBe(true)
          else expect([isIP(endpoint.host) > 0, endpoint.port > 0 && endpoint.port < 65_536]).toEqual([true, true])
        } catch (error) {
          expect(error).toBeInstanceOf(Failure)
        }
      }),
    )
  })

  test('EP-7 is missing when neither we nor the environment name one', () => {
    vi.stubEnv('SPIFFE_ENDPOINT_SOCKET', '')
    expect(() => endpointOf()).toThrow(expect.objectContaining({ reason: 'endpoint.missing' }))
  })

  test('EP-7 comes from the environment when we name none', () => {
    vi.stubEnv('SPIFFE_ENDPOINT_SOCKET', 'unix:///run/agent.sock')
    expect(endpointOf()).toEqual({ scheme: 'unix', path: '/run/agent.sock' })
    expect(endpointOf('unix:/other.sock')).toEqual({ scheme: 'unix', path: '/other.sock' })
  })

  test('EP-10 may be TCP, with an IP address of either kind', () => {
    expect(parseEndpoint('tcp://127.0.0.1:8000')).toEqual({ scheme: 'tcp', host: '127.0.0.1', port: 8000 })
    expect(parseEndpoint('tcp://[2001:db8::1]:65535')).toEqual({ scheme: 'tcp', host: '2001:db8::1', port: 65_535 })
  })

  test('EP-10 is a Unix socket where nothing else is spoken to', () => {
    expect(endpointPath('unix:///run/agent.sock')).toBe('/run/agent.sock')
    expect(() => endpointPath('tcp://127.0.0.1:8000')).toThrow(expect.objectContaining({ reason: 'endpoint.tcp' }))
  })
})
