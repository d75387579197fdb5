import { join } from 'node:path'
import { z } from 'zod'
import { formatInstant } from '../../kernel/clock.ts'
import { command } from '../command.ts'
import type { HeldX509Svid } from '../context.ts'
import { within, workloadSocket } from '../flags.ts'
import { facts } from '../output.ts'

export const fetchX509 = command({
  name: 'fetch x509',
  summary: 'fetch the X509-SVIDs of this process, and write them to files if asked to',
  flags: z.strictObject({
    ...workloadSocket,
    write: z
      .string()
      .optional()
      .describe('write svid.N.pem, svid.N.key and bundle.TRUST-DOMAIN.pem into this directory')
      .meta({ value: 'directory' }),
  }),
  examples: ['vidimus fetch x509 --socket unix:///run/vidimus/agent/public/api.sock --write ./svid'],
  async run({ socket, write }, { openWorkloadApi, disk, stop }) {
    await using api = openWorkloadApi(socket)
    const { svids, bundles } = await api.fetchX509(within(stop))
    const written: string[] = []
    if (write !== undefined) {
      const put = async (name: string, content: string, secret = false) => {
        await disk.write(join(write, name), content, secret)
        written.push(join(write, name))
      }
      for (const [index, svid] of svids.entries()) {
        await put(`svid.${index}.pem`, svid.chainPem)
        await put(`svid.${index}.key`, svid.privateKeyPem, true)
      }
      for (const [domain, pem] of bundles) await put(`bundle.${domain}.pem`, pem)
    }
    return {
      value: { svids: svids.map(told), bundles: Object.fromEntries(bundles), ...(write === undefined ? {} : { written }) },
      text: [
        ...svids.map((svid) => facts(Object.entries(told(svid)).filter(([name]) => name !== 'chain'))),
        ...written.map((path) => `wrote ${path}`),
      ].join('\n\n'),
    }
  },
})

/** Everything but the key, which is shown to nobody and written only where the user says. */
function told({ spiffeId, hint, serial, notBefore, notAfter, chainPem }: HeldX509Svid) {
  return {
    spiffeId,
    ...(hint === '' ? {} : { hint }),
    serial,
    notBefore: formatInstant(notBefore),
    notAfter: formatInstant(notAfter),
    chain: chainPem,
  }
}

export const fetchJwt = command({
  name: 'fetch jwt',
  summary: 'fetch JWT-SVIDs of this process for an audience',
  flags: z.strictObject({
    ...workloadSocket,
    audience: z.array(z.string().min(1)).min(1).describe('whom the token is for; as often as needed').meta({ value: 'name' }),
    spiffeId: z.string().optional().describe('for this identity only').meta({ value: 'id' }),
  }),
  examples: ['vidimus fetch jwt --audience orders'],
  async run({ socket, audience, spiffeId }, { openWorkloadApi, stop }) {
    await using api = openWorkloadApi(socket)
    const svids = await api.fetchJwt(audience, spiffeId, within(stop))
    return { value: { svids }, text: svids.map((svid) => `${svid.spiffeId}\n${svid.token}`).join('\n\n') }
  },
})

export const fetchWit = command({
  name: 'fetch wit',
  summary: 'fetch the WIT-SVIDs of this process, and write them with their keys to files if asked to',
  flags: z.strictObject({
    ...workloadSocket,
    spiffeId: z.string().optional().describe('for this identity only').meta({ value: 'id' }),
    write: z.string().optional().describe('write wit.N.jwt and wit.N.jwk into this directory').meta({ value: 'directory' }),
  }),
  examples: ['vidimus fetch wit --write ./wit'],
  async run({ socket, spiffeId, write }, { openWorkloadApi, disk, stop }) {
    await using api = openWorkloadApi(socket)
    const svids = await api.fetchWit(spiffeId, within(stop))
    const written: string[] = []
    for (const [index, { token, privateKeyJwk }] of write === undefined ? [] : svids.entries()) {
      const [tokenFile, keyFile] = [join(write!, `wit.${index}.jwt`), join(write!, `wit.${index}.jwk`)]
      await disk.write(tokenFile, token, false)
      await disk.write(keyFile, privateKeyJwk, true)
      written.push(tokenFile, keyFile)
    }
    return {
      value: {
        svids: svids.map(({ spiffeId: id, hint, token }) => ({ spiffeId: id, ...(hint === '' ? {} : { hint }), token })),
        ...(write === undefined ? {} : { written }),
      },
      text: [...svids.map((svid) => `${svid.spiffeId}\n${svid.token}`), ...written.map((path) => `wrote ${path}`)].join('\n\n'),
    }
  },
})

export const fetchBundles = command({
  name: 'fetch bundles',
  summary: 'fetch the trust bundles that this process may use',
  flags: z.strictObject(workloadSocket),
  async run({ socket }, { openWorkloadApi, stop }) {
    await using api = openWorkloadApi(socket)
    const { x509, jwt } = await api.fetchBundles(within(stop))
    const text = [...x509]
      .map(([domain, pem]) => `${domain}\n${pem}`)
      .concat([...jwt].map(([domain, keys]) => `${domain}\n${JSON.stringify(keys, null, 2)}`))
    return { value: { x509: Object.fromEntries(x509), jwt: Object.fromEntries(jwt) }, text: text.join('\n') }
  },
})

export const validateJwt = command({
  name: 'validate jwt',
  summary: 'have the agent judge a JWT-SVID',
  flags: z.strictObject({
    ...workloadSocket,
    audience: z.string().min(1).describe('the audience that the token must be for').meta({ value: 'name' }),
    tokenFile: z.string().default('-').describe('a file with the token; `-` for standard input').meta({ value: 'path' }),
  }),
  examples: ['vidimus fetch jwt --audience orders --output json | jq -r .svids[0].token | vidimus validate jwt --audience orders'],
  async run({ socket, audience, tokenFile }, { openWorkloadApi, disk, stop }) {
    const token = (await disk.read(tokenFile)).trim()
    await using api = openWorkloadApi(socket)
    const valid = await api.validateJwt(audience, token, within(stop))
    return {
      value: valid,
      text: facts([
        ['valid for', audience],
        ['spiffeId', valid.spiffeId],
        ['claims', JSON.stringify(valid.claims)],
      ]),
    }
  },
})
