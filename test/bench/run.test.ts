import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { describe, expect, test } from 'vitest'

// Each case starts the program anew, with every room in it.
describe('npm run bench', { timeout: 30_000 }, () => {
  test('refuses a bench that does not exist, and says which do', async () => {
    const { code, out, err } = await bench('issuance.p257')
    expect(code).toBe(2)
    expect(out).toBe('')
    expect(err).toContain('no bench is called `issuance.p257`')
    expect(err).toContain('issuance.p256')
  })

  test.each(['0', '51', 'soon'])('refuses to measure for `%s` seconds', async (seconds) => {
    const { code, err } = await bench('spiffe.id-parse', `--seconds=${seconds}`)
    expect(code).toBe(2)
    expect(err).toContain('at most 50')
  })

  test('prints one JSON object a bench, and a table for people beside it', async () => {
    const { code, out, err } = await bench('spiffe.id-parse', 'policy.decide10', '--seconds', '0.2')
    expect(code).toBe(0)
    const figures = out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
    expect(figures.map((figure) => [figure['bench'], figure['unit']])).toEqual([
      ['spiffe.id-parse', 'ids/s'],
      ['policy.decide10', 'decisions/s'],
    ])
    for (const { value, n } of figures) expect([value, n]).toEqual([expect.any(Number), expect.any(Number)])
    expect(err).toMatch(/^BENCH +VALUE +UNIT/m)
  })

  test('lists every bench with what it measures', async () => {
    const { code, out } = await bench('--list')
    expect(code).toBe(0)
    expect(out).toMatch(/^workload-api\.x509 +\S/m)
  })
})

async function bench(...args: readonly string[]): Promise<{ code: number | null; out: string; err: string }> {
  const child = spawn(process.execPath, ['bench/run.ts', ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const code = new Promise<number | null>((resolve) => child.once('close', resolve))
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)])
  return { code: await code, out, err }
}
