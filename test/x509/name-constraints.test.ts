/** what name constraints mean, row by row, with the verdict of `openssl verify` beside ours and a reason wherever they differ. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Failure } from '../../src/kernel/failure.ts'
import { buildChain } from '../../src/x509/chain.ts'
import { ascii, encodeDer, sequence, tagged, taggedPrimitive } from '../../src/x509/der-writer.ts'
import { generalName, type NameConstraintLists } from '../../src/x509/extension.ts'
import { oid } from '../../src/x509/oid.ts'
import { formatPem } from '../../src/x509/pem.ts'
import { type Issued, TestCa, type Wishes } from '../support/test-ca.ts'

interface Row {
  readonly what: string
  /** Of one CA below the other. */
  readonly cas: readonly Wishes[]
  readonly leaf: Wishes
  readonly accepted: boolean
  /** Why openssl says the opposite. */
  readonly opensslDiffers?: string
}

const at = Date.UTC(2026, 0, 1)
const under = (...lists: NameConstraintLists[]): readonly Wishes[] =>
  lists.map((list) => ({ nameConstraints: { critical: true, ...list } }))
const uri = (...uris: string[]): Wishes => ({ uris })
const dns = (...dnsNames: string[]): Wishes => ({ uris: [], dnsNames })
const onEmail = (kind: 0 | 1, host: string): Wishes => ({
  extra: [
    {
      oid: oid.nameConstraints,
      critical: true,
      value: encodeDer(sequence(tagged(kind, sequence(taggedPrimitive(generalName.email, ascii(host)))))),
    },
  ],
})
const mailbox = (value: string): Wishes => ({ uris: [], subject: [{ oid: oid.emailAddress, value }] })

const laxNames = 'it compares what is no name of a host letter by letter, and so lets an excluded one through'
const refused: readonly Omit<Row, 'accepted'>[] = [
  { what: 'a URI of another host', cas: under({ permittedUris: ['a.test'] }), leaf: uri('spiffe://b.test/x') },
  { what: 'a URI of a host below the permitted one', cas: under({ permittedUris: ['a.test'] }), leaf: uri('spiffe://x.a.test/x') },
  {
    what: 'a URI of the domain where hosts below are permitted',
    cas: under({ permittedUris: ['.a.test'] }),
    leaf: uri('spiffe://a.test/x'),
  },
  { what: 'a URI of a host that only ends alike', cas: under({ permittedUris: ['.a.test'] }), leaf: uri('spiffe://ba.test/x') },
  { what: 'a URI without a host', cas: under({ permittedUris: ['a.test'] }), leaf: uri('urn:a.test') },
  { what: 'one URI of two outside', cas: under({ permittedUris: ['a.test'] }), leaf: uri('spiffe://a.test/x', 'spiffe://b.test/x') },
  { what: 'an excluded host', cas: under({ excludedUris: ['a.test'] }), leaf: uri('spiffe://a.test/x') },
  { what: 'an excluded host in capitals', cas: under({ excludedUris: ['a.test'] }), leaf: uri('spiffe://A.test/x') },
  { what: 'an excluded host with a port', cas: under({ excludedUris: ['a.test'] }), leaf: uri('https://a.test:8443/x') },
  { what: 'a host below an excluded domain', cas: under({ excludedUris: ['.a.test'] }), leaf: uri('spiffe://x.a.test/x') },
  {
    what: 'a host permitted and excluded',
    cas: under({ permittedUris: ['a.test'], excludedUris: ['a.test'] }),
    leaf: uri('spiffe://a.test/x'),
  },
  {
    what: 'a URI that the CA above alone excludes',
    cas: under({ excludedUris: ['a.test'] }, { permittedUris: ['a.test'] }),
    leaf: uri('spiffe://a.test/x'),
  },
  {
    what: 'a URI that each of two CAs permits in part',
    cas: under({ permittedUris: ['a.test'] }, { permittedUris: ['b.test'] }),
    leaf: uri('spiffe://b.test/x'),
  },
  {
    what: 'an excluded host with a dot at its end',
    cas: under({ excludedUris: ['a.test'] }),
    leaf: uri('spiffe://a.test./x'),
    opensslDiffers: laxNames,
  },
  {
    what: 'an excluded host after a user',
    cas: under({ excludedUris: ['a.test'] }),
    leaf: uri('spiffe://me@a.test/x'),
    opensslDiffers: laxNames,
  },
  {
    what: 'an address beside an excluded host',
    cas: under({ excludedUris: ['a.test'] }),
    leaf: uri('spiffe://127.0.0.1/x'),
    opensslDiffers: laxNames,
  },
  { what: 'a DNS name outside', cas: under({ permittedDns: ['a.test'] }), leaf: dns('b.test') },
  { what: 'a DNS name that only ends alike', cas: under({ permittedDns: ['a.test'] }), leaf: dns('ba.test') },
  { what: 'the domain itself where a dot leads', cas: under({ permittedDns: ['.a.test'] }), leaf: dns('a.test') },
  { what: 'an excluded DNS name', cas: under({ excludedDns: ['a.test'] }), leaf: dns('a.test') },
  { what: 'a DNS name below an excluded one, in capitals', cas: under({ excludedDns: ['a.test'] }), leaf: dns('x.A.test') },
  { what: 'any DNS name where all are excluded', cas: under({ excludedDns: [''] }), leaf: dns('a.test') },
  {
    what: 'a DNS name excluded below a permitted one',
    cas: under({ permittedDns: ['a.test'], excludedDns: ['x.a.test'] }),
    leaf: dns('y.x.a.test'),
  },
  { what: 'a wildcard above the permitted name', cas: under({ permittedDns: ['x.a.test'] }), leaf: dns('*.a.test') },
  {
    what: 'a wildcard that covers an excluded name',
    cas: under({ excludedDns: ['x.a.test'] }),
    leaf: dns('*.a.test'),
    opensslDiffers: 'it takes a wildcard for a name of its own',
  },
  {
    what: 'an excluded DNS name with a dot at its end',
    cas: under({ excludedDns: ['a.test'] }),
    leaf: dns('a.test.'),
    opensslDiffers: laxNames,
  },
  { what: 'a mailbox in the subject that is not permitted', cas: [onEmail(0, 'a.test')], leaf: mailbox('me@b.test') },
  { what: 'a mailbox in the subject that is excluded', cas: [onEmail(1, 'a.test')], leaf: mailbox('me@a.test') },
  {
    what: 'a mailbox in the subject that is permitted',
    cas: [onEmail(0, 'a.test')],
    leaf: mailbox('me@a.test'),
    opensslDiffers: 'it evaluates constraints on mailboxes; we refuse every name of a type whose constraints we do not evaluate',
  },
]

const accepted: readonly Omit<Row, 'accepted'>[] = [
  { what: 'the permitted host', cas: under({ permittedUris: ['a.test'] }), leaf: uri('spiffe://a.test/x') },
  { what: 'one of two permitted hosts, in capitals', cas: under({ permittedUris: ['b.test', 'A.Test'] }), leaf: uri('spiffe://a.test/x') },
  { what: 'the permitted host with a port', cas: under({ permittedUris: ['a.test'] }), leaf: uri('https://a.test:8443/x') },
  { what: 'a host far below a permitted domain', cas: under({ permittedUris: ['.a.test'] }), leaf: uri('spiffe://y.x.a.test/x') },
  { what: 'the domain where hosts below are excluded', cas: under({ excludedUris: ['.a.test'] }), leaf: uri('spiffe://a.test/x') },
  { what: 'a host below an excluded host', cas: under({ excludedUris: ['a.test'] }), leaf: uri('spiffe://x.a.test/x') },
  {
    what: 'a URI that two CAs permit',
    cas: under({ permittedUris: ['a.test', 'b.test'] }, { permittedUris: ['b.test'] }),
    leaf: uri('spiffe://b.test/x'),
  },
  { what: 'a URI where DNS names alone are constrained', cas: under({ permittedDns: ['a.test'] }), leaf: uri('spiffe://b.test/x') },
  { what: 'a permitted DNS name and one below', cas: under({ permittedDns: ['a.test'] }), leaf: dns('a.test', 'y.x.a.test') },
  { what: 'a DNS name below a leading dot', cas: under({ permittedDns: ['.a.test'] }), leaf: dns('x.a.test') },
  { what: 'a wildcard below a permitted name', cas: under({ permittedDns: ['a.test'] }), leaf: dns('*.a.test') },
  { what: 'a name beside an excluded one', cas: under({ excludedDns: ['x.a.test'] }), leaf: dns('y.a.test') },
]

const rows: readonly Row[] = [
  ...refused.map((row) => ({ ...row, accepted: false })),
  ...accepted.map((row) => ({ ...row, accepted: true })),
]

let root: TestCa
const made = new Map<Row, { readonly cas: readonly TestCa[]; readonly leaf: Issued }>()

beforeAll(async () => {
  root = await TestCa.create({ at })
  for (const [index, row] of rows.entries()) {
    const cas: TestCa[] = []
    for (const [depth, wishes] of row.cas.entries())
      cas.push(await (cas.at(-1) ?? root).intermediate({ name: `ca ${index}.${depth}`, ca: {}, uris: [], ...wishes }))
    made.set(row, { cas, leaf: await cas.at(-1)!.leaf(row.leaf) })
  }
})

test.each(rows.map((row) => [row.accepted ? 'accepted' : 'refused', row.what, row] as const))('R-44 %s: %s', (_verdict, _what, row) => {
  const { cas, leaf } = made.get(row)!
  expect(ourVerdict(cas, leaf)).toBe(row.accepted ? 'accepted' : 'chain.name-constraint')
})

function ourVerdict(cas: readonly TestCa[], { certificate }: Issued): string {
  try {
    buildChain({ leaf: certificate, intermediates: cas.map((ca) => ca.certificate), roots: [root.certificate], at })
    return 'accepted'
  } catch (error) {
    return Failure.from(error).reason
  }
}

const noOpenssl = spawnSync('openssl', ['version']).status === 0 ? '' : ' (skipped: needs the program `openssl`)'

describe.skipIf(noOpenssl !== '')(`R-44 openssl verify${noOpenssl}`, () => {
  const folder = mkdtempSync(join(tmpdir(), 'names-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  test('says the same of every row, but where a reason is given', () => {
    const file = (name: string, ders: readonly Uint8Array[]) => {
      writeFileSync(join(folder, name), ders.map((der) => formatPem('CERTIFICATE', der)).join(''))
      return name
    }
    const all = [...made.values()]
    const leaves = all.map(({ leaf }, index) => file(`leaf-${index}.pem`, [leaf.certificate.raw]))
    const args = ['verify', '-attime', `${at / 1000}`, '-CAfile', file('root.pem', [root.certificate.raw])]
    const cas = file(
      'cas.pem',
      all.flatMap((each) => each.cas.map(({ certificate }) => certificate.raw)),
    )
    const { stdout } = spawnSync('openssl', [...args, '-untrusted', cas, ...leaves], { cwd: folder, encoding: 'utf8', timeout: 20_000 })
    const good = new Set(stdout.split('\n').flatMap((line) => /^(.*): OK$/.exec(line)?.[1] ?? []))
    const theirs = rows.map(({ what }, index) => [what, good.has(`leaf-${index}.pem`)])
    expect(theirs).toEqual(rows.map((row) => [row.what, row.accepted === (row.opensslDiffers === undefined)]))
  })
})
