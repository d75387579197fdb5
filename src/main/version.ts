/** What this program is called in logs, to servers and on the command line. */
import packageJson from '../../package.json' with { type: 'json' }

export const version: string = packageJson.version
