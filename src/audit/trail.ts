import type { Driver } from '../kernel/driver.ts'

/** PORT: where audit lines go. A line is on its way out of this process, safely, when `append` resolves. */
export interface AuditSink extends AsyncDisposable {
  append(line: string): Promise<void>
  /** The last line written, so that the chain goes on after a restart. */
  last?(): Promise<string | undefined>
}

export type AuditSinkDriver<Config = never> = Driver<AuditSink, Config>
export const auditSink = <Config>(driver: AuditSinkDriver<Config>): AuditSinkDriver<Config> => driver
