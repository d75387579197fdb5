import type { Reporter, TestCase, TestModule } from 'vitest/node'
import { rules } from '../../src/conformance/rules.ts'
import type { Rule } from '../../src/conformance/rule.ts'

/**
 * Prints a line a rule of the SPIFFE specifications: `rule J-11 kept`, `rule W-21 broken: …`, `rule ID-17 not testable: …`, `rule F-3 not built`.
 * A test speaks for the rules whose ids stand in its name. Only where the whole suite ran: parts of it say nothing about the rest.
 */
export default class RuleReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    if (!modules.some(({ relativeModuleId }) => relativeModuleId === wholeSuite)) return
    const spoken = new Map<string, TestCase[]>()
    for (const test of modules.flatMap((module) => [...module.children.allTests()])) {
      for (const id of idsIn(test.name)) spoken.set(id, [...(spoken.get(id) ?? []), test])
    }
    process.stdout.write(`\n${rules.map((rule) => `rule ${rule.id} ${verdictOn(rule, spoken.get(rule.id) ?? [])}`).join('\n')}\n`)
  }
}

function verdictOn({ unseen, notBuilt }: Rule, tests: readonly TestCase[]): string {
  const failed = tests.find((test) => test.result().state === 'failed')
  if (failed) return `broken: ${failed.fullName}: ${failed.result().errors?.[0]?.message.split('\n')[0] ?? ''}`
  if (tests.some((test) => test.result().state === 'passed')) return 'kept'
  if (notBuilt !== undefined) return 'not built'
  const skipped = tests.map((test) => test.meta().skipReason).find((reason) => reason !== undefined)
  return `not testable: ${skipped ?? unseen ?? 'no test of this run speaks for it'}`
}

/** `X-1 X-24 names one SPIFFE ID` */
const idsIn = (name: string): readonly string[] => name.match(/(?<![\w-])(?:ID|X|J|W|EP|API|B|F|BE|BR|T)-\d+(?![\w-])/g) ?? []

const wholeSuite = 'test/conformance/own-agent.test.ts'
