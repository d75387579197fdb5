import { create } from '@bufbuild/protobuf'
import { anyPack, anyUnpack } from '@bufbuild/protobuf/wkt'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Category, Failure } from '../../src/kernel/failure.ts'
import { ErrorInfoSchema } from '../../src/rpc/gen/google/rpc/status_pb.ts'
import { categoryOf, codeOf, detailsOf, fromWireStatus, toWireStatus } from '../../src/rpc/status.ts'

/** https://grpc.io/docs/guides/status-codes/ */
const codes: Readonly<Record<Category, number>> = {
  cancelled: 1,
  invalid_argument: 3,
  deadline_exceeded: 4,
  not_found: 5,
  already_exists: 6,
  permission_denied: 7,
  resource_exhausted: 8,
  failed_precondition: 9,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  unauthenticated: 16,
}

describe('a status', () => {
  test.each(Object.entries(codes) as [Category, number][])('%s is code %i, both ways', (category, code) => {
    expect(codeOf(category)).toBe(code)
    expect(categoryOf(code)).toBe(category)
  })

  test.each([
    [2, 'internal'],
    [10, 'unavailable'],
    [11, 'invalid_argument'],
    [15, 'internal'],
    [0, 'internal'],
    [99, 'internal'],
    [-1, 'internal'],
  ])('that has no category, %i, is read as %s', (code, category) => {
    expect(categoryOf(code)).toBe(category)
  })

  test('with malformed details keeps its code and text', () => {
    const failure = fromWireStatus({ code: 7, text: 'no', details: Uint8Array.of(0xff, 0xff) })
    expect(failure).toMatchObject({ category: 'permission_denied', message: 'no' })
    expect(detailsOf(failure)).toEqual([])
  })

  test('keeps the address of a server that is away from whoever reads public texts', () => {
    const failure = fromWireStatus({ code: 14, text: 'connect ECONNREFUSED 10.1.2.3:8081' })
    expect(failure.message).not.toContain('10.1.2.3')
    expect(failure.internal['text']).toContain('10.1.2.3')
  })

  test('carries no reason code and nothing internal to the other side', () => {
    const wire = toWireStatus(
      new Failure('internal', 'ca.key-lost', { public: 'internal error', internal: { key: 'a' }, cause: new Error('b') }),
    )
    expect(wire).toEqual({ code: 13, text: 'internal error' })
  })

  test('of any failure survives the wire, and any text can be percent-encoded', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 64 }),
      fc.string({ minLength: 2000, maxLength: 4000 }),
      fc.constant('\ud800'),
    )
    fc.assert(
      fc.property(fc.constantFrom(...(Object.keys(codes) as Category[])), text, fc.string(), (category, said, reason) => {
        const detail = anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason }))
        const wire = toWireStatus(new Failure(category, 'x.y', { public: said }), [detail])
        expect(() => encodeURI(wire.text)).not.toThrow()
        expect(wire.text.length).toBeLessThanOrEqual(2048)
        const back = fromWireStatus(wire)
        expect(back.category).toBe(category)
        expect(anyUnpack(detailsOf(back)[0]!, ErrorInfoSchema)?.reason).toBe(reason)
      }),
    )
  })
})
