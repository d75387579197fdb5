import type { TrustBundle } from '../spiffe/bundle.ts'
import type { Server } from './server.ts'

/** Our own trust bundle as it is now: public, and what everybody needs to verify us with. */
export const currentBundle = ({ ca }: Pick<Server, 'ca'>): TrustBundle => ca.bundle.current
