/** What streams hand out: named resources, each with a version. */
import { createHash } from 'node:crypto'
import type { Watched } from '../kernel/watched.ts'

/** One named resource as it goes out: the content of its `Any`, and a version that changes with that content and with nothing else. */
export interface Resource {
  readonly version: string
  readonly value: Uint8Array
}

/** Everything that a stream may be given, by name. */
export type Resources = ReadonlyMap<string, Resource>

/** A version for some content: short, and equal for equal bytes, on every agent and after every restart. */
export function contentVersion(content: Uint8Array | string): string {
  return createHash('sha256').update(content).digest('base64url').slice(0, versionCharacters)
}

/** The resources made of something else that is watched. What `make` throws ends the stream. */
export function resourcesFrom<T>(source: Watched<T>, make: (value: T) => Resources): Watched<Resources> {
  return {
    get current() {
      return make(source.current)
    },
    async *changes(signal) {
      for await (const value of source.changes(signal)) yield make(value)
    },
  }
}

/** 22 characters of base64url are 132 bits. */
const versionCharacters = 22
