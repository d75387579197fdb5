import { Visitor } from '@swc/core/Visitor.js'

/**
 * The visitor that dependency-cruiser walks sources with does not know `using` and `await using`, although the parser does, and stops at the first.
 * This adds the one case, in this process only.
 */
export function teachSwcUsing(): void {
  const known = Visitor.prototype.visitStatement
  Visitor.prototype.visitStatement = function (this: Visitor, statement) {
    const found: { readonly type: string; readonly decls?: Parameters<Visitor['visitVariableDeclarators']>[0] } = statement
    if (found.type !== 'UsingDeclaration' || found.decls === undefined) return known.call(this, statement)
    this.visitVariableDeclarators(found.decls)
    return statement
  }
}
