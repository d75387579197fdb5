/** Why a rule shows nothing to somebody who only holds the socket of a Workload API. */
export const unseen = {
  permission: 'a permission: whoever makes no use of it keeps it as well',
  validators: 'a rule for validators: the Workload API validates no certificate that is handed to it',
  signedByAuthority: "it takes a token that is wrong in this one thing and signed with the trust domain's own key",
  consumers: 'a rule for whoever reads a bundle document: the Workload API reads none',
  documents: 'a rule for bundle documents: the Workload API hands out certificates and plain key sets; `vidimus inspect` judges a document',
  clients: 'a rule for clients of the Workload API',
  presentation: 'a rule for how workloads show tokens to each other',
} as const

const federation = 'federation is not built'
const broker = 'the broker endpoint is not built'
export const notBuilt = { federation, broker } as const
