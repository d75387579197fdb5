// The arrows of the house: who may know whom. One rule a row, with its reason as comment; `npm run boundaries` checks them.
// What a tool for imports cannot see (who signs, say) is in `tools/boundaries.ts`.

const crafts = ['ca', 'attestation', 'registry']
const inputAndOutput =
  '^(node:)?(fs|fs/promises|net|tls|http|https|http2|dgram|dns|dns/promises|child_process|worker_threads|cluster|sqlite|timers|timers/promises|process|os)$'

/** Drivers: what the operator chooses by its `kind`. */
const drivers = '^src/(ca/(keys|upstream)/|attestation/(node|workload)/|audit/sinks/|store/(sqlite|postgres)\\.ts$)'

const source = (rooms) => `^src/(${rooms.join('|')})/`

/** A room may import these rooms and itself; types alone from those of `types`; and the files of `files`. Nothing else of ours. */
function row(room, { rooms = [], types = [], files = [] }, reason) {
  const open = [source([room, 'kernel', ...rooms]), ...files]
  const rules = [
    {
      name: `arrows of ${room}`,
      severity: 'error',
      comment: reason,
      from: { path: source([room]) },
      to: { path: '^src/', pathNot: [...open, ...(types.length > 0 ? [source(types)] : [])] },
    },
  ]
  if (types.length > 0) {
    rules.push({
      name: `${room} takes types alone`,
      severity: 'error',
      comment: `${reason} Of ${types.join(', ')} it may know the types, to translate them, and no code.`,
      from: { path: source([room]) },
      to: { path: source(types), pathNot: open, dependencyTypesNot: ['type-only'] },
    })
  }
  return rules
}

/** A module that only these files of ours may import. */
function only(name, module, from, reason) {
  return { name, severity: 'error', comment: reason, from: { path: '^src/', pathNot: from }, to: { path: module } }
}

module.exports = {
  forbidden: [
    // Floor 0
    ...row('kernel', {}, 'The kernel is what everybody stands on: it knows nothing of ours.'),
    {
      name: 'the kernel adapts the machine in a few files',
      severity: 'error',
      comment: 'Clock, chance, disk, bytes and threads are adapted in one file each; the rest of the kernel is plain language.',
      from: { path: '^src/kernel/', pathNot: '^src/kernel/(clock|random|files|bytes|threads)\\.ts$' },
      to: { dependencyTypes: ['core'] },
    },
    ...row('x509', {}, 'A codec knows bytes and values: no SPIFFE, no trust.'),
    // Floor 1
    ...row('spiffe', { rooms: ['x509'] }, 'The standards as values stand on the codec alone.'),
    ...row('audit', {}, 'What happened is written down without knowing the rooms that did it.'),
    // Floor 2
    ...row('policy', { rooms: ['spiffe'] }, 'A decision is a function of policies and a request.'),
    ...crafts.flatMap((craft) =>
      row(
        craft,
        { rooms: ['spiffe', 'x509', 'audit'] },
        'Crafts do not know each other, nor policy, nor how they are kept or called: they meet in the households.',
      ),
    ),
    // Floor 3
    ...row('store', { rooms: ['registry', 'ca', 'spiffe', 'policy'] }, 'A store keeps what the ports of the crafts ask it to keep.'),
    ...row('rpc', {}, 'Plumbing knows sockets and protobuf, no SPIFFE.'),
    ...row('xds', {}, 'A discovery stream is one async iterable in and one out, for resources of any kind.'),
    ...['server', 'agent'].flatMap((household) =>
      row(
        household,
        { rooms: [...crafts, 'policy', 'spiffe', 'audit', 'x509'] },
        'A household combines the crafts, and knows neither the other household nor stores nor wires.',
      ),
    ),
    // Floor 4
    ...row(
      'server-api',
      { rooms: ['server', 'rpc', 'policy', 'spiffe', 'x509'], types: crafts, files: ['^src/agent/upstream-server\\.ts$'] },
      "A door speaks for its household; its client is the agent's port to a server.",
    ),
    ...['workload-api', 'sds', 'authz'].flatMap((door) =>
      row(
        door,
        { rooms: ['agent', 'rpc', 'xds', 'policy', 'spiffe', 'x509'], types: crafts },
        'A door speaks for its household, and doors do not know each other.',
      ),
    ),
    ...row(
      'workload-client',
      { rooms: ['rpc', 'policy', 'spiffe', 'x509'] },
      "The client library runs in other people's services: it brings no household along.",
    ),
    ...row('conformance', { rooms: ['rpc', 'spiffe', 'x509'] }, 'A judge stands outside what it judges.'),
    ...row(
      'cli',
      { rooms: ['rpc', 'policy', 'spiffe', 'x509'], types: crafts, files: ['^src/server-api/client\\.ts$'] },
      'A command calls the server by its client; what needs another room is handed over by main/cli.ts.',
    ),
    // Floor 5
    {
      name: 'main is not imported',
      severity: 'error',
      comment: 'Main wires everything; whoever imports it turns the house upside down.',
      from: { path: '^src/', pathNot: '^src/main/' },
      to: { path: '^src/main/' },
    },

    // Drivers
    {
      name: 'drivers come from the list',
      severity: 'error',
      comment: 'A driver is reachable from main/builtins.ts alone: what is linked in can be read in one place.',
      from: { path: '^src/', pathNot: [drivers, '^src/main/builtins\\.ts$'] },
      to: { path: drivers },
    },
    {
      name: 'drivers do not know each other',
      severity: 'error',
      comment: 'A driver imports its port, lower floors and its library.',
      from: { path: '^src/((?:ca|attestation|audit)/[^/]+)/([^/-]+)[^/]*\\.ts$' },
      // A driver that is more than one file names the others after itself: pkcs11.ts, pkcs11-thread.ts.
      to: { path: drivers, pathNot: '^src/$1/$2[-.]' },
    },
    only(
      'the kernel of the machine is asked in main',
      '^src/attestation/peer/',
      '^src/(main|attestation/peer)/',
      'Peer credentials are native calls: main hands them to the doors by their port.',
    ),

    // Purity
    {
      name: 'values do no input or output',
      severity: 'error',
      comment: 'Letters, codec and policy take values and give values or refusals: no sockets, no disk, no clock.',
      from: { path: '^src/(x509|spiffe|audit|policy)/', pathNot: '^src/audit/sinks/' },
      to: { path: inputAndOutput },
    },
    {
      name: 'crafts and households do not open sockets',
      severity: 'error',
      comment: 'What speaks to the world is a driver, the store, the plumbing, a door or main.',
      from: { path: '^src/(ca|registry|server|agent)/', pathNot: [drivers, '^src/ca/vault/(wire|credentials)\\.ts$'] },
      to: { path: inputAndOutput },
    },

    // Wire formats and libraries, one file each
    only(
      'protobuf stays at the doors',
      ['^src/rpc/gen/', 'node_modules/@bufbuild/protobuf/'],
      // sds/secrets.ts and these files of authz are those doors' messages under the name of what they make.
      [
        '^src/(rpc|main)/',
        '^src/[^/]+/(messages|client|[^/]*service|services)\\.ts$',
        '^src/sds/secrets\\.ts$',
        '^src/authz/(rbac|rbac-interpreter|delivered-filters|requirement|cel-messages)\\.ts$',
      ],
      'Generated types end where a message is translated; below, there are domain values. Main mounts the services.',
    ),
    only('grpc-js', 'node_modules/@grpc/', '^src/rpc/(listen|serve|client)\\.ts$', 'The gRPC library can be replaced in three files.'),
    only(
      '@peculiar/x509',
      'node_modules/(@peculiar/|reflect-metadata/)',
      '^src/x509/library\\.ts$',
      'A slow and careful second opinion, in one file that is imported late.',
    ),
    only(
      'koffi',
      'node_modules/koffi/',
      '^src/(attestation/peer/linux|ca/keys/pkcs11-library)\\.ts$',
      'Native calls are dangerous: there are two files of them.',
    ),
    only('node-vault', 'node_modules/node-vault/', '^src/ca/vault/wire\\.ts$', 'The wire to Vault, nothing more.'),
    only(
      'a vault is spoken to by its drivers',
      '^src/ca/vault/',
      '^src/(ca/vault|main)/|^src/ca/(keys|upstream)/vault[^/]*\\.ts$',
      'Upstream and key manager share one way to a vault; nobody else in the room goes there.',
    ),
    only(
      'jose',
      'node_modules/jose/',
      '^src/(spiffe/jws|ca/jwt-authority|policy/signed-set)\\.ts$',
      'Tokens are verified in one place, keys are named in another, and policies are signed in a third.',
    ),
    only('kysely', '^(node:)?sqlite$|node_modules/(kysely|pg)/', '^src/store/', 'SQL is spoken in the store.'),
    only(
      'yaml',
      'node_modules/yaml/',
      '^src/(policy/language|policy/yaml[^/]*|main/config/[^/]+)\\.ts$|^src/cli/',
      'Text that people write is parsed where its language is known.',
    ),
    only(
      'cel',
      'node_modules/@bufbuild/(cel|cel-spec|re2)/',
      '^src/(policy/cel|authz/rbac-interpreter)\\.ts$',
      'Conditions are read in one file; expressions of RE2 run where they are judged.',
    ),
    only('pino', 'node_modules/pino/', '^src/main/log\\.ts$', 'Rooms write to the port Log.'),
    only('commander', 'node_modules/commander/', '^src/(cli|main)/', 'Arguments are read at the front door.'),
    only('@opentelemetry', 'node_modules/@opentelemetry/', '^src/main/', 'Rooms see the port Meter.'),

    // Everywhere
    {
      name: 'no cycles',
      severity: 'error',
      comment: 'Two files that need each other are one file, or a third is missing.',
      from: { path: '^(src|tools|test|bench|examples)/' },
      to: { circular: true },
    },
    {
      name: 'what is imported exists',
      severity: 'error',
      comment: 'An import that cannot be resolved fails at run time.',
      from: { path: '^src/' },
      to: { couldNotResolve: true },
    },
    {
      name: 'the product needs no development dependency',
      severity: 'error',
      comment: 'What src imports is installed with the published package.',
      from: { path: '^src/' },
      to: { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown'], dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'src does not know its surroundings',
      severity: 'error',
      comment: 'Tests, tools, benches and examples look at the product, not the other way round.',
      from: { path: '^src/' },
      to: { path: '^(test|tools|bench|examples|fuzz)/' },
    },
  ],
  options: {
    parser: 'swc',
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    doNotFollow: { path: ['node_modules', '^src/rpc/gen/'] },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default', 'types'],
      extensions: ['.ts', '.js', '.json'],
    },
  },
}
