/** Who is on the other end of a local socket, as the kernel says. */

/** A process that connected. Held open until disposed, so that its number cannot come to mean another process unnoticed. */
export interface Peer extends Disposable {
  readonly pid: number
  readonly uid: number
  readonly gid: number
  /** True while the process that connected is the one that has this pid. Asked again after every read of /proc. */
  stillThere(): boolean
}
