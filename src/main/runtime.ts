/** Imported before anything else, so it stands on nothing: an old runtime cannot read the rest. */

/** Node 24.17: `await using`, `node:sqlite`, OpenSSL 3.5. */
const least = [24, 17] as const

/** Ends the process, saying what to do, if the runtime is too old. */
export function checkRuntime(version: string): void {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (major > least[0] || (major === least[0] && minor >= least[1])) return
  process.stderr.write(
    `vidimus: this is Node ${version}: expected ${least.join('.')} or later; install it, or in a checkout run \`npm ci\` and then \`npm run vidimus -- …\`\n`,
  )
  process.exit(2)
}
