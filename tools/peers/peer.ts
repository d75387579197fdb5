/** A real counterpart that tests run against: how it is had from an ordinary package client, and where its program is then. */
export interface Peer {
  readonly name: string
  readonly version: string
  /** What it is for, in a few words. */
  readonly purpose: string
  /** Name of its folder in the cache: changes whenever what is in it would. */
  readonly folder: string
  /** Path of its program within the folder. */
  readonly program: string
  /** Arguments with which the program says that it works, and ends. */
  readonly probe: readonly string[]
  /** What it comes from, for the progress lines. */
  readonly source: string
  /** Fills an empty folder. @throws CannotProvide */
  provide(folder: string): Promise<void>
}

/** Why a peer cannot be had here, and what would help. */
export class CannotProvide extends Error {
  readonly remedy: string

  constructor(reason: string, remedy: string) {
    super(reason)
    this.remedy = remedy
  }
}
