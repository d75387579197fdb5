import { Failure } from '../kernel/failure.ts'
import type { Rule } from './rule.ts'
import { brokerRules } from './rules/broker.ts'
import { bundleRules } from './rules/bundle.ts'
import { federationRules } from './rules/federation.ts'
import { jwtSvidRules } from './rules/jwt-svid.ts'
import { rulesAcross } from './rules/across.ts'
import { spiffeIdRules } from './rules/spiffe-id.ts'
import { witSvidRules } from './rules/wit-svid.ts'
import { workloadApiRules } from './rules/workload-api.ts'
import { workloadEndpointRules } from './rules/workload-endpoint.ts'
import { x509SvidRules } from './rules/x509-svid.ts'

/** Every rule, each once, in the order of docs/rules/spiffe.md. */
export const rules: readonly Rule[] = [
  ...spiffeIdRules,
  ...x509SvidRules,
  ...jwtSvidRules,
  ...witSvidRules,
  ...workloadEndpointRules,
  ...workloadApiRules,
  ...bundleRules,
  ...federationRules,
  ...brokerRules,
  ...rulesAcross,
]

/** The rules of sections (`J`) and single ones (`J-11`); all where nothing is named. @throws Failure `usage.selection` */
export function selectRules(names: readonly string[]): readonly Rule[] {
  const strange = names.find((name) => !rules.some((rule) => isNamed(rule, name)))
  if (strange !== undefined) {
    throw new Failure('invalid_argument', 'usage.selection', {
      public: `\`${strange.slice(0, 40)}\` is neither a rule nor a section: expected some of ${sections.map((name) => `\`${name}\``).join(', ')}, or a rule like \`J-11\``,
    })
  }
  return names.length === 0 ? rules : rules.filter((rule) => names.some((name) => isNamed(rule, name)))
}

const isNamed = ({ id }: Rule, name: string): boolean => id === name || sectionOf(id) === name
const sectionOf = (id: string): string => id.slice(0, id.lastIndexOf('-'))
const sections = [...new Set(rules.map(({ id }) => sectionOf(id)))]
