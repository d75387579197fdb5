#!/usr/bin/env node
/** The command line, wired: the list of commands, and the deeds that come from other rooms. */
import { enableCompileCache } from 'node:module'
import { checkRuntime } from './runtime.ts'

checkRuntime(process.versions.node)
// What was compiled once is not compiled again at the next start.
enableCompileCache()
const { main } = await import('./command-line.ts')
await main(process.argv.slice(2))
