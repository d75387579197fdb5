import { defineConfig } from 'vitest/config'

/**
 * Envoy asks the kernel to die with the thread that started it, so every file has a process of its own.
 * No test takes seconds by itself; the time is for machines that have much else to do.
 */
const common = { pool: 'forks' as const, setupFiles: ['test/support/leaks.ts'], testTimeout: 20_000, hookTimeout: 20_000 }

const folder = (name: string) => `test/${name}/**/*.test.ts`

export default defineConfig({
  test: {
    reporters: ['default', './test/support/rule-reporter.ts', './test/support/closing-line-reporter.ts'],
    projects: [
      {
        test: {
          ...common,
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['contract', 'conformance', 'scenario', 'e2e'].map(folder),
        },
      },
      { test: { ...common, name: 'contract', include: [folder('contract')] } },
      { test: { ...common, name: 'conformance', include: [folder('conformance')] } },
      { test: { ...common, name: 'scenario', include: [folder('scenario')], testTimeout: 60_000, hookTimeout: 60_000 } },
      // Real programs on two cores: one file at a time, and after everything else.
      {
        test: {
          ...common,
          name: 'e2e',
          include: [folder('e2e')],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
})
