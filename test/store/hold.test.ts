import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { holdDirectory } from '../../src/store/hold.ts'

/** What another process gets that wants to hold the directory: `held`, or why not. */
function another(directory: string, then = ''): string {
  const module = JSON.stringify(fileURLToPath(new URL('../../src/store/hold.ts', import.meta.url)))
  const program = `import { holdDirectory } from ${module}; try { holdDirectory(${JSON.stringify(directory)}); console.log('held') } catch (error) { console.log(error.reason) } ${then}`
  return spawnSync(process.execPath, ['--input-type=module-typescript', '-e', program], { encoding: 'utf8' }).stdout.trim()
}

test('a directory that is held is refused to every other process, and free when it is let go', { timeout: 30_000 }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'vh-'))
  try {
    const held = holdDirectory(directory)
    expect(statSync(join(directory, 'lock')).mode & 0o777).toBe(0o600)
    expect(another(directory)).toBe('directory.in-use')
    held[Symbol.dispose]()
    expect(another(directory, `process.kill(process.pid, 'SIGKILL')`), 'a process that is killed holds nothing').toBe('held')
    expect(another(directory)).toBe('held')
  } finally {
    rmSync(directory, { recursive: true })
  }
})
