/**
 * Linux tells who connected to a UNIX socket: the only native calls of this program.
 * The kernel writes the credentials down at connect(2); nothing that the caller sends can change them.
 */
import { closeSync, readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { Failure } from '../../kernel/failure.ts'
import { type ProcessStart, parseStat, parseStatus } from '../proc.ts'
import type { Peer } from '../peer.ts'
import type { PeerCredentials } from '../peer-credentials.ts'

export interface LinuxPeerOptions {
  /** False leaves out process file descriptors, as kernels before 6.5 do: then the start time tells processes apart. */
  readonly pidfd?: boolean
}

/** Loads the native calls, late because most commands of this program need none. */
export async function openPeerCredentials(options: LinuxPeerOptions = {}): Promise<PeerCredentials> {
  const kernel = await loadKernelCalls()
  const watch = (pid: number, pidfd: number | undefined): Liveness => (pidfd === undefined ? byStartTime(pid) : byPidfd(kernel, pidfd))
  return {
    of(socket) {
      const fd = fileDescriptorOf(socket)
      const credentials = fd === undefined ? undefined : kernel.peerCredentials(fd)
      // A process of another pid namespace has no number here and is reported as 0: it cannot be looked up, so it is nobody.
      if (fd === undefined || !credentials || credentials.pid <= 0) {
        throw new Failure('unauthenticated', 'peer.unknown', { public: 'the kernel does not say who is calling' })
      }
      const pidfd = options.pidfd === false ? undefined : kernel.peerPidfd(fd)
      return peer(credentials, watch(credentials.pid, pidfd))
    },

    ofPid(pid) {
      if (!Number.isSafeInteger(pid) || pid <= 0 || pid > maxPid) throw noSuchProcess(pid)
      const liveness = watch(pid, options.pidfd === false ? undefined : kernel.openPidfd(pid))
      try {
        const owner = parseStatus(readFileSync(`/proc/${pid}/status`, 'latin1'))
        if (liveness.stillThere()) return peer({ pid, uid: owner.uid, gid: owner.gid }, liveness)
      } catch {
        // It ended while it was being read.
      }
      liveness.close()
      throw noSuchProcess(pid)
    },
  }
}

/** Tells whether one process is still running, without mistaking a later one with its number for it. */
interface Liveness {
  stillThere(): boolean
  close(): void
}

function peer(credentials: { readonly pid: number; readonly uid: number; readonly gid: number }, liveness: Liveness): Peer {
  let disposed = false
  return Object.freeze({
    ...credentials,
    stillThere: () => !disposed && liveness.stillThere(),
    [Symbol.dispose]() {
      if (disposed) return
      disposed = true
      liveness.close()
    },
  })
}

/** A process file descriptor names one process for ever; it becomes readable when that process ends (pidfd_open(2)). */
function byPidfd(kernel: KernelCalls, pidfd: number): Liveness {
  return { stillThere: () => !kernel.isReadable(pidfd), close: () => closeSync(pidfd) }
}

/** Without one, a process is its number and the moment it started. */
function byStartTime(pid: number): Liveness {
  const first = startOf(pid)
  return {
    stillThere: () => {
      const now = startOf(pid)
      return first !== undefined && now !== undefined && now.startTime === first.startTime && !ended.has(now.state)
    },
    close() {},
  }
}

function startOf(pid: number): ProcessStart | undefined {
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, 'latin1'))
  } catch {
    return undefined
  }
}

/** Node keeps the descriptor of a socket to itself; the handle of every accepted pipe has it. */
function fileDescriptorOf(socket: Socket): number | undefined {
  const handle = (socket as unknown as { _handle?: { fd?: unknown } | null })._handle
  return typeof handle?.fd === 'number' && handle.fd >= 0 ? handle.fd : undefined
}

function noSuchProcess(pid: number): Failure {
  return new Failure('not_found', 'peer.no-such-process', { public: `there is no process \`${pid}\`` })
}

interface KernelCalls {
  peerCredentials(fd: number): { readonly pid: number; readonly uid: number; readonly gid: number } | undefined
  /** Undefined where the kernel has none to give. */
  peerPidfd(fd: number): number | undefined
  openPidfd(pid: number): number | undefined
  isReadable(fd: number): boolean
}

async function loadKernelCalls(): Promise<KernelCalls> {
  const { default: koffi } = await import('koffi')
  const libc = koffi.load('libc.so.6')
  const getsockopt = libc.func('int getsockopt(int fd, int level, int name, _Out_ void *value, _Inout_ uint32_t *length)')
  const poll = libc.func('int poll(void *fds, unsigned long count, int timeout)')
  const syscall = libc.func('long syscall(long number, long first, long second)')

  // One for all questions: each is asked and answered without a pause.
  const pollfd = Buffer.alloc(8)
  pollfd.writeInt16LE(POLLIN, 4)
  const readOption = (fd: number, name: number, size: number): Buffer | undefined => {
    const value = Buffer.alloc(size)
    const length = [size]
    return getsockopt(fd, SOL_SOCKET, name, value, length) === 0 && length[0] === size ? value : undefined
  }
  return {
    peerCredentials(fd) {
      const ucred = readOption(fd, SO_PEERCRED, 12)
      return ucred && { pid: ucred.readInt32LE(0), uid: ucred.readUInt32LE(4), gid: ucred.readUInt32LE(8) }
    },
    peerPidfd(fd) {
      const pidfd = readOption(fd, SO_PEERPIDFD, 4)?.readInt32LE(0)
      return pidfd !== undefined && pidfd >= 0 ? pidfd : undefined
    },
    openPidfd(pid) {
      const pidfd = Number(syscall(SYS_pidfd_open, pid, 0))
      return pidfd >= 0 ? pidfd : undefined
    },
    isReadable(fd) {
      pollfd.writeInt32LE(fd, 0)
      // A signal to this process can interrupt the call (-1, EINTR), which says nothing of the other one: ask again.
      // Anything else but "nothing to report" counts as readable, an error included.
      for (let tries = 0; tries < maxInterruptions; tries++) if (poll(pollfd, 1, 0) === 0) return false
      return true
    },
  }
}

/** asm-generic/socket.h, asm-generic/poll.h and asm-generic/unistd.h: the same numbers on x86-64 and arm64. */
const SOL_SOCKET = 1
const SO_PEERCRED = 17
const SO_PEERPIDFD = 77
const POLLIN = 1
const SYS_pidfd_open = 434
const maxInterruptions = 1000
/** proc(5): the largest that kernel.pid_max can be. */
const maxPid = 2 ** 22
/** proc_pid_stat(5): zombie and dead. */
const ended: ReadonlySet<string> = new Set(['Z', 'X', 'x'])
