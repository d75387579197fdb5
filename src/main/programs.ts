/** The programs that run until they are stopped, and their configurations. */
import type { ConfigChoice, Programs } from '../cli/context.ts'
import type { ConfigSource } from './config/load.ts'
import { systemDisk } from './disk.ts'
import { countHangups } from './process.ts'

/** Each program is imported when it is asked for, so that a command which needs neither starts fast. */
export const programs: Programs = {
  async run(kind, choice, stop) {
    const source = await sourceOf(choice)
    if (kind === 'server') {
      const [{ runServer }, { loadServerConfig }] = await Promise.all([import('./server.ts'), import('./config/server.ts')])
      const load = (from: ConfigSource) => loadServerConfig(from, choice.overrides)
      using hangups = countHangups()
      return await runServer(load(source), stop, { asked: hangups.asked, read: async () => load(await sourceOf(choice)) })
    }
    const [{ runAgent }, { loadAgentConfig }] = await Promise.all([import('./agent.ts'), import('./config/agent.ts')])
    return runAgent(loadAgentConfig(source, choice.overrides), stop)
  },

  async effectiveConfig(kind, choice) {
    const { showConfig } = await import('./config/show.ts')
    const source = await sourceOf(choice)
    if (kind === 'server') return showConfig((await import('./config/server.ts')).loadServerConfig(source, choice.overrides))
    return showConfig((await import('./config/agent.ts')).loadAgentConfig(source, choice.overrides))
  },
}

export async function sourceOf({ path }: ConfigChoice): Promise<ConfigSource> {
  return path === undefined
    ? { name: 'command line', text: '' }
    : { name: path === '-' ? 'standard input' : path, text: await systemDisk.read(path) }
}
