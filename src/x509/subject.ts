/** The attributes of a subject that may be chosen for a workload: RFC 5280 section 4.1.2.6 and appendix A.1. */
import { Failure } from '../kernel/failure.ts'
import type { NameAttribute } from './name.ts'
import { oid } from './oid.ts'

/** Under the names in which people write them, in the order in which they are encoded. */
const types = {
  country: oid.countryName,
  stateOrProvince: oid.stateOrProvinceName,
  locality: oid.localityName,
  organization: oid.organizationName,
  organizationalUnit: oid.organizationalUnitName,
  commonName: oid.commonName,
} as const

export type SubjectField = keyof typeof types

export const subjectFields = Object.keys(types) as readonly SubjectField[]

/** Every value may stand in a certificate. Only {@link parseSubject} makes one from outside. */
export type SubjectAttributes = Readonly<Partial<Record<SubjectField, string>>>

/**
 * Attributes as somebody wrote them; undefined where there are none.
 * @throws Failure `subject.unknown-attribute`, `subject.length`, `subject.characters`, `subject.country`
 */
export function parseSubject(written: Readonly<Record<string, string>>): SubjectAttributes | undefined {
  const unknown = Object.keys(written).find((name) => !Object.hasOwn(types, name))
  if (unknown !== undefined) {
    throw refused(
      'unknown-attribute',
      `a subject has no attribute \`${unknown.slice(0, 80)}\` that may be chosen: expected ${subjectFields.join(', ')}`,
    )
  }
  const given = subjectFields.filter((field) => written[field] !== undefined)
  for (const field of given) demandValue(field, written[field]!)
  return given.length === 0 ? undefined : Object.fromEntries(given.map((field) => [field, written[field]!]))
}

/** As a name is encoded, each attribute once, the most specific last. */
export function subjectAttributes(subject: SubjectAttributes): NameAttribute[] {
  return subjectFields.flatMap((field) => {
    const value = subject[field]
    return value === undefined ? [] : [{ oid: types[field], value }]
  })
}

/**
 * Whether a verifier that still looks at common names would take this one for a host: it holds nothing that a host name, a wildcard or an
 * address could not hold (RFC 9525 section 6.3, RFC 6125 section 6.4.4).
 */
export const mayBeTakenForHost = (commonName: string): boolean => /^[\p{L}\p{N}\p{M}.*:_[\]-]+$/u.test(commonName)

/** Whether a value holds no character that is unseen, or that changes how its neighbours are shown. */
export const isPlainText = (value: string): boolean =>
  /^[ -~]*$/.test(value) || (value.isWellFormed() && !/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/u.test(value))

function demandValue(field: SubjectField, value: string): void {
  if (value === '' || value.length > maxValue)
    throw refused('length', `\`${field}\` of a subject has ${value.length} characters: expected 1 to ${maxValue}`)
  if (!isPlainText(value) || value.trim() !== value)
    throw refused('characters', `\`${field}\` of a subject holds a control character, or begins or ends with a space`)
  if (field === 'country' && !/^[A-Z]{2}$/.test(value))
    throw refused('country', `\`country\` of a subject is \`${value}\`: expected two capital letters (ISO 3166), for example \`DE\``)
}

function refused(what: string, text: string): Failure {
  return new Failure('invalid_argument', `subject.${what}`, { public: text })
}

/** RFC 5280 appendix A.1: ub-common-name and its like, of which this is the least. */
const maxValue = 64
