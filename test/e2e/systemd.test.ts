import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'

const analyze = '/usr/bin/systemd-analyze'
const units = ['deploy/systemd/vidimus-server.service', 'deploy/systemd/vidimus-agent.service']

describe('the systemd units', () => {
  test.skipIf(!existsSync(analyze)).each(units)(
    '`systemd-analyze verify` finds nothing wrong with %s (needs systemd-analyze: install the package `systemd`)',
    async (unit) => {
      const directory = await mkdtemp(join(tmpdir(), 'vidimus-units-'))
      try {
        const text = (await readFile(unit, 'utf8')).replace(/^(User|Group)=.*$/gm, '$1=root')
        await writeFile(join(directory, basename(unit)), text)
        const { stdout, stderr } = await promisify(execFile)(analyze, ['verify', '--man=no', join(directory, basename(unit))])
        const complaints = `${stdout}${stderr}`.split('\n').filter((line) => line.includes(basename(unit)))
        expect(complaints).toEqual([])
      } finally {
        await rm(directory, { recursive: true })
      }
    },
  )
})
