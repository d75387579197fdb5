import { z } from 'zod'
import { command } from '../command.ts'
import { configFlags } from '../flags.ts'

export const serverRun = command({
  name: 'server run',
  summary: 'run the certificate authority until it is told to stop',
  flags: z.strictObject(configFlags),
  examples: [
    'vidimus server run --config /etc/vidimus/server.yaml',
    'vidimus server run --set trustDomain=example.org --set dataDirectory=./data --set adminSocket=./data/api.sock',
  ],
  run: ({ config, set }, { programs, stop }) => programs.run('server', { path: config, overrides: set }, stop),
})
