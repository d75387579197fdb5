import type { Socket } from 'node:net'
import type { Peer } from './peer.ts'

/** PORT: asks the kernel who connected to a UNIX socket. Called at accept, before a byte is read. */
export interface PeerCredentials {
  /** @throws Failure `peer.unknown` when the kernel does not tell */
  of(socket: Socket): Peer
  /** The process with this number now, for operators who ask about one. @throws Failure `peer.no-such-process` */
  ofPid(pid: number): Peer
}
