/** A path as the proxy will see it: Istio's `meshConfig.pathNormalization`, as Envoy carries it out. */

/** Istio's modes, from nothing to everything. Strict sets use the last. */
export const pathNormalizations = ['none', 'base', 'merge-slashes', 'decode-and-merge-slashes'] as const
export type PathNormalization = (typeof pathNormalizations)[number]
