/** What the CA remembers across restarts: which keys and certificates are prepared, active and old. No private key is in it. */

/** PORT: keeps one journal for each server, replaced in one step. */
export interface CaJournal {
  /** The newest record, or undefined on a new server. */
  read(serverId: string): Promise<{ readonly record: string; readonly revision: bigint } | undefined>
  /** Stores `record` if the stored revision still is `revision` (0n for none). @throws Failure `journal.changed-meanwhile` */
  write(serverId: string, record: string, revision: bigint): Promise<void>
}
