/** Analysis ends: work is counted, not timed, so that the same question has the same answer on every machine. */

/** How much an analysis may cost. */
export interface AnalysisLimits {
  /** Nodes of diagrams and states of automata that may be made. */
  readonly nodes: number
  /** Steps of any kind. */
  readonly steps: number
}

/** Enough for sets of thousands of rules, and done in well under a minute. */
export const defaultLimits: AnalysisLimits = { nodes: 2_000_000, steps: 400_000_000 }

/** Counts what an analysis spends. */
export class Budget {
  #nodes: number
  #steps: number

  constructor({ nodes, steps }: AnalysisLimits = defaultLimits) {
    this.#nodes = nodes
    this.#steps = steps
  }

  /** @throws BudgetExhausted */
  node(): void {
    if (--this.#nodes < 0) throw new BudgetExhausted()
  }

  /** @throws BudgetExhausted */
  step(count = 1): void {
    this.#steps -= count
    if (this.#steps < 0) throw new BudgetExhausted()
  }
}

/** Thrown inside this folder alone: every question catches it and answers `unknown`. */
export class BudgetExhausted extends Error {
  constructor() {
    super('the budget of the analysis is used up')
    this.name = 'BudgetExhausted'
  }
}
