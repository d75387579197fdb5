/** What an RBAC filter requires of a request: one vocabulary for the two sides of an Envoy policy, which name the same things differently. */
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { PermissionSchema, PrincipalSchema } from '../rpc/gen/envoy/config/rbac/v3/rbac_pb.ts'
import type { HeaderMatcherSchema } from '../rpc/gen/envoy/config/route/v3/route_pb.ts'
import type { MetadataMatcherSchema, StringMatcherSchema } from '../rpc/gen/envoy/type/matcher/v3/matcher_pb.ts'

export type Permission = MessageInitShape<typeof PermissionSchema>
export type Principal = MessageInitShape<typeof PrincipalSchema>
export type Matcher = MessageInitShape<typeof StringMatcherSchema>
export type MetadataMatcher = MessageInitShape<typeof MetadataMatcherSchema>
export type HeaderMatcher = MessageInitShape<typeof HeaderMatcherSchema>

/** Headers, paths and metadata can stand on both sides, the rest on one of them. */
export type Requirement =
  | { readonly kind: 'always' }
  | { readonly kind: 'all' | 'oneOf'; readonly of: readonly Requirement[] }
  | { readonly kind: 'not'; readonly of: Requirement }
  | { readonly kind: 'header'; readonly matcher: HeaderMatcher }
  | { readonly kind: 'path'; readonly matcher: Matcher }
  | { readonly kind: 'metadata'; readonly matcher: MetadataMatcher }
  | { readonly kind: 'permission'; readonly permission: Permission }
  | { readonly kind: 'principal'; readonly principal: Principal }

export const always: Requirement = { kind: 'always' }
export const not = (of: Requirement): Requirement => ({ kind: 'not', of })
export const notIf = (condition: boolean, of: Requirement): Requirement => (condition ? not(of) : of)
/** All of none is always. */
export const all = (of: readonly Requirement[]): Requirement => (of.length < 2 ? (of[0] ?? always) : { kind: 'all', of })
/** One of none is never. */
export const oneOf = (of: readonly Requirement[]): Requirement => (of.length < 2 ? (of[0] ?? not(always)) : { kind: 'oneOf', of })

/** On the side of operations. */
export function asPermission(requirement: Requirement): Permission {
  switch (requirement.kind) {
    case 'always':
      return { rule: { case: 'any', value: true } }
    case 'all':
      return { rule: { case: 'andRules', value: { rules: requirement.of.map(asPermission) } } }
    case 'oneOf':
      return { rule: { case: 'orRules', value: { rules: requirement.of.map(asPermission) } } }
    case 'not':
      return { rule: { case: 'notRule', value: asPermission(requirement.of) } }
    case 'header':
      return { rule: { case: 'header', value: requirement.matcher } }
    case 'path':
      return { rule: { case: 'urlPath', value: { rule: { case: 'path', value: requirement.matcher } } } }
    case 'metadata':
      return { rule: { case: 'metadata', value: requirement.matcher } }
    case 'permission':
      return requirement.permission
    case 'principal':
      throw new Error('bug: a source is required of an operation')
    default:
      throw new Error(`bug: requirement ${JSON.stringify(requirement satisfies never)}`)
  }
}

/** On the side of sources. */
export function asPrincipal(requirement: Requirement): Principal {
  switch (requirement.kind) {
    case 'always':
      return { identifier: { case: 'any', value: true } }
    case 'all':
      return { identifier: { case: 'andIds', value: { ids: requirement.of.map(asPrincipal) } } }
    case 'oneOf':
      return { identifier: { case: 'orIds', value: { ids: requirement.of.map(asPrincipal) } } }
    case 'not':
      return { identifier: { case: 'notId', value: asPrincipal(requirement.of) } }
    case 'header':
      return { identifier: { case: 'header', value: requirement.matcher } }
    case 'path':
      return { identifier: { case: 'urlPath', value: { rule: { case: 'path', value: requirement.matcher } } } }
    case 'metadata':
      return { identifier: { case: 'metadata', value: requirement.matcher } }
    case 'principal':
      return requirement.principal
    case 'permission':
      throw new Error('bug: an operation is required of a source')
    default:
      throw new Error(`bug: requirement ${JSON.stringify(requirement satisfies never)}`)
  }
}
