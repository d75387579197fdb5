#!/usr/bin/env node
/** The command line, wired: the list of commands, and the deeds that come from other rooms. */
import { checkRuntime } from './runtime.ts'

checkRuntime(process.versions.node)
const { main } = await import('./command-line.ts')
await main(process.argv.slice(2))
