import { afterEach, describe, expect, test, vi } from 'vitest'
import { endpointPath } from '../../src/workload-client/endpoint.ts'

afterEach(() => void vi.unstubAllEnvs())

describe('the address of the Workload API', () => {
  test.each([
    ['EP-9 has an authority', 'unix://host/path'],
    ['EP-9 has an empty path', 'unix://'],
    ['EP-9 is the root directory', 'unix:///'],
    ['EP-9 is relative', 'unix:run/agent.sock'],
    ['EP-9 begins with four slashes', 'unix:////run/agent.sock'],
    ['EP-9 has a query', 'unix:///run/agent.sock?x=1'],
    ['EP-9 has a fragment', 'unix:///run/agent.sock#x'],
    ['EP-8 has another scheme', 'http:///run/agent.sock'],
    ['EP-8 is written in capitals', 'UNIX:///run/agent.sock'],
    ['EP-8 is a bare path', '/run/agent.sock'],
  ])('is refused when it %s', (_what, address) => {
    expect(() => endpointPath(address)).toThrow(expect.objectContaining({ reason: 'endpoint.malformed', category: 'invalid_argument' }))
  })

  test('EP-10 is refused with a reason of its own when it is TCP', () => {
    expect(() => endpointPath('tcp://127.0.0.1:8000')).toThrow(expect.objectContaining({ reason: 'endpoint.tcp' }))
  })

  test('EP-7 is missing when neither we nor the environment name one', () => {
    vi.stubEnv('SPIFFE_ENDPOINT_SOCKET', '')
    expect(() => endpointPath()).toThrow(expect.objectContaining({ reason: 'endpoint.missing' }))
  })

  test('EP-7 comes from the environment when we name none', () => {
    vi.stubEnv('SPIFFE_ENDPOINT_SOCKET', 'unix:///run/agent.sock')
    expect(endpointPath()).toBe('/run/agent.sock')
    expect(endpointPath('unix:/other.sock')).toBe('/other.sock')
  })
})
