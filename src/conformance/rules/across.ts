/** What follows from several specifications at once. */
import { type Rule, section } from '../rule.ts'

export const rulesAcross: readonly Rule[] = section({
  'T-1': { level: 'derived', says: 'every parser reads one SPIFFE ID alike', unseen: 'it compares parsers with each other' },
  'T-2': {
    level: 'derived',
    says: 'what one implementation issues the others accept',
    unseen: 'it takes another implementation beside this one',
  },
  'T-3': {
    level: 'derived',
    says: 'no ID is read as a URL, which would fold and repair it',
    unseen: 'the ID rules ask for every repair that a URL parser would make',
  },
  'T-4': {
    level: 'derived',
    says: 'what is withdrawn is gone with the next message, and the stream with the last identity',
    unseen: 'it takes an operator who withdraws something',
  },
})
