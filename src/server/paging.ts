import { createHash } from 'node:crypto'
import { base64url, fromBase64url, fromUtf8, utf8 } from '../kernel/bytes.ts'
import { Failure } from '../kernel/failure.ts'
import type { Page } from '../registry/entry.ts'

export interface PageRequest {
  /** 0 asks for the largest page. */
  readonly size: number
  /** Empty for the first page. */
  readonly token: string
}

/** What a page token is good for: nobody else's list, and no other question. */
export interface PageScope {
  readonly caller: string
  readonly filter: unknown
}

/** No page is longer, whatever was asked for. */
export const maxPage = 500

/** @throws Failure `paging.bad-size`, `paging.bad-token` */
export function readPage(page: PageRequest, scope: PageScope): { readonly limit: number; readonly after?: string } {
  if (page.size < 0)
    throw new Failure('invalid_argument', 'paging.bad-size', { public: `the page size is ${page.size}: expected 0 or more` })
  const limit = page.size === 0 ? maxPage : Math.min(page.size, maxPage)
  if (page.token === '') return { limit }
  return { limit, after: openToken(page.token, scope) }
}

/** The token of the next page; empty after the last. */
export function nextToken(page: Page<unknown>, scope: PageScope): string {
  return page.next === undefined ? '' : base64url(utf8(`${sealOf(scope)}${page.next}`))
}

function openToken(token: string, scope: PageScope): string {
  const text = token.length <= maxToken ? decoded(token) : undefined
  const seal = sealOf(scope)
  if (text === undefined || !text.startsWith(seal) || text.length === seal.length) {
    throw new Failure('invalid_argument', 'paging.bad-token', { public: 'the page token was not given out for this question' })
  }
  return text.slice(seal.length)
}

function decoded(token: string): string | undefined {
  try {
    return fromUtf8(fromBase64url(token))
  } catch {
    return undefined
  }
}

function sealOf({ caller, filter }: PageScope): string {
  return createHash('sha256')
    .update(JSON.stringify([caller, filter]))
    .digest('base64url')
    .slice(0, 22)
}

const maxToken = 8192
