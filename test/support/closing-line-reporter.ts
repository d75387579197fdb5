import type { Reporter, TestCase, TestModule, Vitest } from 'vitest/node'
import './peers.ts'

/**
 * Prints what programs read, last and alone on its line: `N passed, N failed, N skipped`; and above it every skipped test with its reason.
 * Whatever went wrong outside a test (a file that could not be loaded, a hook that threw, a rejection nobody caught) counts as one failed.
 */
export default class ClosingLineReporter implements Reporter {
  #filtered = false

  onInit(vitest: Vitest): void {
    this.#filtered = vitest.config.testNamePattern !== undefined
  }

  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly unknown[]): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()])
    const count = (state: string) => tests.filter((test) => test.result().state === state).length
    const unfinished = count('pending')
    const outside = modules.reduce((sum, module) => sum + brokenOutsideTests(module), 0)
    const failed = count('failed') + unfinished + outside + unhandled.length
    const lines = this.#filtered ? [] : tests.filter((test) => test.result().state === 'skipped').map(tellSkipped)
    lines.push(`${count('passed')} passed, ${failed} failed, ${count('skipped')} skipped`)
    process.stdout.write(`\n${lines.join('\n')}\n`)
  }
}

function tellSkipped(test: TestCase): string {
  return `skipped: ${test.module.relativeModuleId} > ${test.fullName}: ${skipReason(test)}`
}

function skipReason(test: TestCase): string {
  const result = test.result()
  const note = result.state === 'skipped' ? result.note : undefined
  return note ?? test.meta().skipReason ?? (hookFailed(test) ? 'a hook before it failed' : 'switched off in the source')
}

function hookFailed(test: TestCase): boolean {
  for (let at = test.parent; ; at = at.parent) {
    if (at.errors().length > 0) return true
    if (at.type === 'module') return false
  }
}

/** How many suites, the file itself included, failed by themselves. */
function brokenOutsideTests(module: TestModule): number {
  return [module, ...module.children.allSuites()].filter((suite) => suite.errors().length > 0).length
}
