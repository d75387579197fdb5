import { globSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import {
  type DescEnum,
  type DescField,
  type DescFile,
  type DescMessage,
  type DescMethod,
  type DescService,
  ScalarType,
} from '@bufbuild/protobuf'
import { nestedTypes } from '@bufbuild/protobuf/reflect'
import { FieldDescriptorProto_Label as Label, FieldDescriptorProto_Type as FieldType } from '@bufbuild/protobuf/wkt'
import { describe, expect, test } from 'vitest'

/** Everything that `src/rpc/proto/` declares. */
const files = await ourFiles()
const messages = files.flatMap((file) => [...nestedTypes(file)].filter((type): type is DescMessage => type.kind === 'message'))
const enums = files.flatMap((file) => [...nestedTypes(file)].filter((type): type is DescEnum => type.kind === 'enum'))
const services = files.flatMap((file): readonly DescService[] => file.services)

const judges = [
  { of: /^(envoy|google)\./, by: 'the full descriptors of Envoy and googleapis' },
  { of: /^(spire|grpc)\.|^[^.]+$/, by: 'the tables below' },
  { of: /^vidimus\./, by: 'nobody: they are our own' },
]

test('every message has exactly one judge', () => {
  expect(messages.length).toBeGreaterThan(100)
  for (const { typeName } of [...messages, ...enums, ...services]) {
    expect(
      judges.filter(({ of }) => of.test(typeName)),
      typeName,
    ).toHaveLength(1)
  }
})

describe('Envoy reads what we mean', () => {
  const published = publishedByEnvoy()
  const ofEnvoy = <T extends { typeName: string }>(all: readonly T[]) => all.filter(({ typeName }) => judges[0]!.of.test(typeName))

  test.each(ofEnvoy(messages).map((message) => [message.typeName, message] as const))('in %s', (typeName, message) => {
    const theirs = published.fields(typeName)
    for (const field of message.fields) {
      const expected = newerThanTheDescriptors[`${typeName}.${field.name}`] ?? theirs?.get(field.name)
      expect(`${field.name}: ${shapeOf(field)}`).toBe(`${field.name}: ${expected}`)
    }
  })

  test.each(ofEnvoy(enums).map((type) => [type.typeName, type] as const))('in %s', (typeName, type) => {
    const theirs = published.values(typeName)
    for (const { name, number } of type.values)
      expect([name, newerThanTheDescriptors[`${typeName}.${name}`] ?? theirs?.get(name)]).toEqual([name, number])
  })

  test.each(ofEnvoy(services).flatMap((service) => service.methods.map((method) => [signatureOf(method)])))('in %s', (signature) => {
    expect(published.methods).toContain(signature)
  })
})

describe('SPIRE, SPIFFE and gRPC clients read what we mean', () => {
  const ofTables = <T extends { typeName: string }>(all: readonly T[]) => all.filter(({ typeName }) => judges[1]!.of.test(typeName))

  test('in every message', () => {
    expect(ofTables(messages).map(rowOf).toSorted()).toEqual(rowsOf(publishedMessages))
  })

  test('in every enumeration', () => {
    const rows = ofTables(enums).map(
      ({ typeName, values }) => `${typeName}: ${values.map(({ name, number }) => `${name}=${number}`).join(' ')}`,
    )
    expect(rows.toSorted()).toEqual(rowsOf(publishedEnums))
  })

  test('in every method', () => {
    expect(
      ofTables(services)
        .flatMap(({ methods }) => methods.map(signatureOf))
        .toSorted(),
    ).toEqual(rowsOf(publishedMethods))
  })
})

// As published in SPIRE's API (1.15), the SPIFFE Workload API and gRPC's health and reflection protocols: the rows that we speak.

const publishedMessages = `
spire.api.server.localauthority.v1.AuthorityState: authority_id=1 string; expires_at=2 int64; upstream_authority_subject_key_id=3 string
spire.api.server.localauthority.v1.GetAuthorityStateRequest:
spire.api.server.localauthority.v1.GetAuthorityStateResponse: active=1 AuthorityState; prepared=2 AuthorityState; old=3 AuthorityState
spire.api.server.localauthority.v1.PrepareAuthorityRequest:
spire.api.server.localauthority.v1.PrepareAuthorityResponse: prepared_authority=1 AuthorityState
spire.api.server.localauthority.v1.ActivateAuthorityRequest: authority_id=1 string
spire.api.server.localauthority.v1.ActivateAuthorityResponse: activated_authority=1 AuthorityState
spire.api.server.localauthority.v1.TaintAuthorityRequest: authority_id=1 string
spire.api.server.localauthority.v1.TaintAuthorityResponse: tainted_authority=1 AuthorityState
spire.api.server.localauthority.v1.RevokeAuthorityRequest: authority_id=1 string
spire.api.server.localauthority.v1.RevokeAuthorityResponse: revoked_authority=1 AuthorityState
spire.api.server.localauthority.v1.TaintX509UpstreamAuthorityRequest: subject_key_id=1 string
spire.api.server.localauthority.v1.TaintX509UpstreamAuthorityResponse: upstream_authority_subject_key_id=1 string
spire.api.server.localauthority.v1.RevokeX509UpstreamAuthorityRequest: subject_key_id=1 string
spire.api.server.localauthority.v1.RevokeX509UpstreamAuthorityResponse: upstream_authority_subject_key_id=1 string
spire.api.types.SPIFFEID: trust_domain=1 string; path=2 string
spire.api.types.Selector: type=1 string; value=2 string
spire.api.types.SelectorMatch: selectors=1 repeated Selector; match=2 MatchBehavior
spire.api.types.FederatesWithMatch: trust_domains=1 repeated string; match=2 MatchBehavior
spire.api.types.Entry: id=1 string; spiffe_id=2 SPIFFEID; parent_id=3 SPIFFEID; selectors=4 repeated Selector; x509_svid_ttl=5 int32; federates_with=6 repeated string; admin=7 bool; downstream=8 bool; expires_at=9 int64; dns_names=10 repeated string; revision_number=11 int64; store_svid=12 bool; jwt_svid_ttl=13 int32; hint=14 string; created_at=15 int64; additional_attributes=16 AdditionalAttributes
spire.api.types.Entry.AdditionalAttributes: disable_x509_svid_prefetch=1 bool; jwt_svid_include_jti=2 bool
spire.api.types.EntryMask: spiffe_id=2 bool; parent_id=3 bool; selectors=4 bool; x509_svid_ttl=5 bool; federates_with=6 bool; admin=7 bool; downstream=8 bool; expires_at=9 bool; dns_names=10 bool; revision_number=11 bool; store_svid=12 bool; jwt_svid_ttl=13 bool; hint=14 bool; created_at=15 bool; additional_attributes=16 bool
spire.api.types.Agent: id=1 SPIFFEID; attestation_type=2 string; x509svid_serial_number=3 string; x509svid_expires_at=4 int64; selectors=5 repeated Selector; banned=6 bool; can_reattest=7 bool; agent_version=8 string
spire.api.types.AgentMask: attestation_type=2 bool; x509svid_serial_number=3 bool; x509svid_expires_at=4 bool; selectors=5 bool; banned=6 bool; can_reattest=7 bool; agent_version=8 bool
spire.api.types.X509Certificate: asn1=1 bytes; tainted=2 bool
spire.api.types.JWTKey: public_key=1 bytes; key_id=2 string; expires_at=3 int64; tainted=4 bool
spire.api.types.WITKey: public_key=1 bytes; key_id=2 string; expires_at=3 int64; tainted=4 bool
spire.api.types.Bundle: trust_domain=1 string; x509_authorities=2 repeated X509Certificate; jwt_authorities=3 repeated JWTKey; refresh_hint=4 int64; sequence_number=5 uint64; wit_authorities=6 repeated WITKey
spire.api.types.BundleMask: x509_authorities=2 bool; jwt_authorities=3 bool; refresh_hint=4 bool; sequence_number=5 bool; wit_authorities=6 bool
spire.api.types.JoinToken: value=1 string; expires_at=2 int64
spire.api.types.X509SVID: cert_chain=1 repeated bytes; id=2 SPIFFEID; expires_at=3 int64; hint=4 string
spire.api.types.WITSVID: token=1 string; id=2 SPIFFEID; expires_at=3 int64; issued_at=4 int64; hint=5 string
spire.api.types.JWTSVID: token=1 string; id=2 SPIFFEID; expires_at=3 int64; issued_at=4 int64; hint=5 string
spire.api.types.Status: code=1 int32; message=2 string
spire.api.types.AttestationData: type=1 string; payload=2 bytes
spire.api.types.PermissionDeniedDetails: reason=1 Reason
spire.api.server.svid.v1.NewX509SVIDParams: entry_id=1 string; csr=2 bytes
spire.api.server.svid.v1.BatchNewX509SVIDRequest: params=1 repeated NewX509SVIDParams
spire.api.server.svid.v1.BatchNewX509SVIDResponse: results=1 repeated Result
spire.api.server.svid.v1.BatchNewX509SVIDResponse.Result: status=1 Status; svid=2 X509SVID
spire.api.server.svid.v1.NewJWTSVIDRequest: entry_id=1 string; audience=2 repeated string
spire.api.server.svid.v1.NewJWTSVIDResponse: svid=1 JWTSVID
spire.api.server.svid.v1.NewWITSVIDParams: entry_id=1 string; public_key=2 bytes; signing_algorithm=3 string
spire.api.server.svid.v1.BatchNewWITSVIDRequest: params=1 repeated NewWITSVIDParams
spire.api.server.svid.v1.BatchNewWITSVIDResponse: results=1 repeated Result
spire.api.server.svid.v1.BatchNewWITSVIDResponse.Result: status=1 Status; svid=2 WITSVID
spire.api.server.svid.v1.MintWITSVIDRequest: id=1 SPIFFEID; public_key=2 bytes; ttl=3 int32; signing_algorithm=4 string
spire.api.server.svid.v1.MintWITSVIDResponse: svid=1 WITSVID
spire.api.server.entry.v1.CountEntriesRequest: filter=1 Filter
spire.api.server.entry.v1.CountEntriesResponse: count=1 int32
spire.api.server.entry.v1.ListEntriesRequest: filter=1 Filter; output_mask=2 EntryMask; page_size=3 int32; page_token=4 string
spire.api.server.entry.v1.ListEntriesRequest.Filter: by_spiffe_id=1 SPIFFEID; by_parent_id=2 SPIFFEID; by_selectors=3 SelectorMatch; by_federates_with=4 FederatesWithMatch; by_hint=5 StringValue; by_downstream=6 BoolValue
spire.api.server.entry.v1.ListEntriesResponse: entries=1 repeated Entry; next_page_token=2 string
spire.api.server.entry.v1.GetEntryRequest: id=1 string; output_mask=2 EntryMask
spire.api.server.entry.v1.BatchCreateEntryRequest: entries=1 repeated Entry; output_mask=2 EntryMask
spire.api.server.entry.v1.BatchCreateEntryResponse: results=1 repeated Result
spire.api.server.entry.v1.BatchCreateEntryResponse.Result: status=1 Status; entry=2 Entry
spire.api.server.entry.v1.BatchUpdateEntryRequest: entries=1 repeated Entry; input_mask=2 EntryMask; output_mask=3 EntryMask
spire.api.server.entry.v1.BatchUpdateEntryResponse: results=1 repeated Result
spire.api.server.entry.v1.BatchUpdateEntryResponse.Result: status=1 Status; entry=2 Entry
spire.api.server.entry.v1.BatchDeleteEntryRequest: ids=1 repeated string
spire.api.server.entry.v1.BatchDeleteEntryResponse: results=1 repeated Result
spire.api.server.entry.v1.BatchDeleteEntryResponse.Result: status=1 Status; id=2 string
spire.api.server.entry.v1.GetAuthorizedEntriesRequest: output_mask=1 EntryMask
spire.api.server.entry.v1.GetAuthorizedEntriesResponse: entries=1 repeated Entry
spire.api.server.entry.v1.SyncAuthorizedEntriesRequest: output_mask=1 EntryMask; ids=2 repeated string
spire.api.server.entry.v1.SyncAuthorizedEntriesResponse: entry_revisions=1 repeated EntryRevision; entries=2 repeated Entry; more=3 bool
spire.api.server.entry.v1.EntryRevision: id=1 string; revision_number=2 int64; created_at=3 int64
spire.api.server.bundle.v1.GetBundleRequest: output_mask=1 BundleMask
spire.api.server.agent.v1.CountAgentsRequest: filter=1 Filter
spire.api.server.agent.v1.CountAgentsResponse: count=1 int32
spire.api.server.agent.v1.ListAgentsRequest: filter=1 Filter; output_mask=2 AgentMask; page_size=3 int32; page_token=4 string
spire.api.server.agent.v1.ListAgentsRequest.Filter: by_attestation_type=1 string; by_selector_match=2 SelectorMatch; by_banned=3 BoolValue; by_can_reattest=4 BoolValue; by_expires_before=5 string
spire.api.server.agent.v1.ListAgentsResponse: agents=1 repeated Agent; next_page_token=2 string
spire.api.server.agent.v1.GetAgentRequest: id=1 SPIFFEID; output_mask=2 AgentMask
spire.api.server.agent.v1.DeleteAgentRequest: id=1 SPIFFEID
spire.api.server.agent.v1.BanAgentRequest: id=1 SPIFFEID
spire.api.server.agent.v1.AttestAgentRequest: params=1 Params; challenge_response=2 bytes
spire.api.server.agent.v1.AttestAgentRequest.Params: data=1 AttestationData; params=2 AgentX509SVIDParams
spire.api.server.agent.v1.AttestAgentResponse: result=1 Result; challenge=2 bytes
spire.api.server.agent.v1.AttestAgentResponse.Result: svid=1 X509SVID; reattestable=2 bool
spire.api.server.agent.v1.AgentX509SVIDParams: csr=1 bytes
spire.api.server.agent.v1.RenewAgentRequest: params=1 AgentX509SVIDParams
spire.api.server.agent.v1.RenewAgentResponse: svid=1 X509SVID
spire.api.server.agent.v1.PostStatusRequest: current_bundle_serial=1 uint64; agent_version=2 string
spire.api.server.agent.v1.PostStatusResponse:
spire.api.server.agent.v1.CreateJoinTokenRequest: ttl=1 int32; token=2 string; agent_id=3 SPIFFEID
X509SVIDRequest:
X509SVIDResponse: svids=1 repeated X509SVID; crl=2 repeated bytes; federated_bundles=3 map<string,bytes>
X509SVID: spiffe_id=1 string; x509_svid=2 bytes; x509_svid_key=3 bytes; bundle=4 bytes; hint=5 string
X509BundlesRequest:
X509BundlesResponse: crl=1 repeated bytes; bundles=2 map<string,bytes>
JWTSVIDRequest: audience=1 repeated string; spiffe_id=2 string
JWTSVIDResponse: svids=1 repeated JWTSVID
JWTSVID: spiffe_id=1 string; svid=2 string; hint=3 string
JWTBundlesRequest:
JWTBundlesResponse: bundles=1 map<string,bytes>
ValidateJWTSVIDRequest: audience=1 string; svid=2 string
ValidateJWTSVIDResponse: spiffe_id=1 string; claims=2 Struct
WITSVIDRequest: spiffe_id=1 string
WITSVIDResponse: svids=1 repeated WITSVID
WITSVID: spiffe_id=1 string; wit_svid=2 string; wit_svid_key=3 string; hint=4 string
WITBundlesRequest:
WITBundlesResponse: bundles=1 map<string,string>
grpc.health.v1.HealthCheckRequest: service=1 string
grpc.health.v1.HealthCheckResponse: status=1 ServingStatus
grpc.reflection.v1.ServerReflectionRequest: host=1 string; file_by_filename=3 string; file_containing_symbol=4 string; file_containing_extension=5 ExtensionRequest; all_extension_numbers_of_type=6 string; list_services=7 string
grpc.reflection.v1.ExtensionRequest: containing_type=1 string; extension_number=2 int32
grpc.reflection.v1.ServerReflectionResponse: valid_host=1 string; original_request=2 ServerReflectionRequest; file_descriptor_response=4 FileDescriptorResponse; all_extension_numbers_response=5 ExtensionNumberResponse; list_services_response=6 ListServiceResponse; error_response=7 ErrorResponse
grpc.reflection.v1.FileDescriptorResponse: file_descriptor_proto=1 repeated bytes
grpc.reflection.v1.ExtensionNumberResponse: base_type_name=1 string; extension_number=2 repeated int32
grpc.reflection.v1.ListServiceResponse: service=1 repeated ServiceResponse
grpc.reflection.v1.ServiceResponse: name=1 string
grpc.reflection.v1.ErrorResponse: error_code=1 int32; error_message=2 string
grpc.reflection.v1alpha.ServerReflectionRequest: host=1 string; file_by_filename=3 string; file_containing_symbol=4 string; file_containing_extension=5 ExtensionRequest; all_extension_numbers_of_type=6 string; list_services=7 string
grpc.reflection.v1alpha.ExtensionRequest: containing_type=1 string; extension_number=2 int32
grpc.reflection.v1alpha.ServerReflectionResponse: valid_host=1 string; original_request=2 ServerReflectionRequest; file_descriptor_response=4 FileDescriptorResponse; all_extension_numbers_response=5 ExtensionNumberResponse; list_services_response=6 ListServiceResponse; error_response=7 ErrorResponse
grpc.reflection.v1alpha.FileDescriptorResponse: file_descriptor_proto=1 repeated bytes
grpc.reflection.v1alpha.ExtensionNumberResponse: base_type_name=1 string; extension_number=2 repeated int32
grpc.reflection.v1alpha.ListServiceResponse: service=1 repeated ServiceResponse
grpc.reflection.v1alpha.ServiceResponse: name=1 string
grpc.reflection.v1alpha.ErrorResponse: error_code=1 int32; error_message=2 string
`

const publishedEnums = `
spire.api.types.SelectorMatch.MatchBehavior: MATCH_EXACT=0 MATCH_SUBSET=1 MATCH_SUPERSET=2 MATCH_ANY=3
spire.api.types.FederatesWithMatch.MatchBehavior: MATCH_EXACT=0 MATCH_SUBSET=1 MATCH_SUPERSET=2 MATCH_ANY=3
spire.api.types.PermissionDeniedDetails.Reason: UNKNOWN=0 AGENT_EXPIRED=1 AGENT_NOT_ATTESTED=2 AGENT_NOT_ACTIVE=3 AGENT_BANNED=4 AGENT_MUST_REATTEST=5
grpc.health.v1.HealthCheckResponse.ServingStatus: UNKNOWN=0 SERVING=1 NOT_SERVING=2 SERVICE_UNKNOWN=3
`

const publishedMethods = `
/spire.api.server.localauthority.v1.LocalAuthority/GetX509AuthorityState GetAuthorityStateRequest GetAuthorityStateResponse
/spire.api.server.localauthority.v1.LocalAuthority/GetJWTAuthorityState GetAuthorityStateRequest GetAuthorityStateResponse
/spire.api.server.localauthority.v1.LocalAuthority/GetWITAuthorityState GetAuthorityStateRequest GetAuthorityStateResponse
/spire.api.server.localauthority.v1.LocalAuthority/PrepareX509Authority PrepareAuthorityRequest PrepareAuthorityResponse
/spire.api.server.localauthority.v1.LocalAuthority/PrepareJWTAuthority PrepareAuthorityRequest PrepareAuthorityResponse
/spire.api.server.localauthority.v1.LocalAuthority/PrepareWITAuthority PrepareAuthorityRequest PrepareAuthorityResponse
/spire.api.server.localauthority.v1.LocalAuthority/ActivateX509Authority ActivateAuthorityRequest ActivateAuthorityResponse
/spire.api.server.localauthority.v1.LocalAuthority/ActivateJWTAuthority ActivateAuthorityRequest ActivateAuthorityResponse
/spire.api.server.localauthority.v1.LocalAuthority/ActivateWITAuthority ActivateAuthorityRequest ActivateAuthorityResponse
/spire.api.server.localauthority.v1.LocalAuthority/TaintX509Authority TaintAuthorityRequest TaintAuthorityResponse
/spire.api.server.localauthority.v1.LocalAuthority/TaintJWTAuthority TaintAuthorityRequest TaintAuthorityResponse
/spire.api.server.localauthority.v1.LocalAuthority/TaintWITAuthority TaintAuthorityRequest TaintAuthorityResponse
/spire.api.server.localauthority.v1.LocalAuthority/RevokeX509Authority RevokeAuthorityRequest RevokeAuthorityResponse
/spire.api.server.localauthority.v1.LocalAuthority/RevokeJWTAuthority RevokeAuthorityRequest RevokeAuthorityResponse
/spire.api.server.localauthority.v1.LocalAuthority/RevokeWITAuthority RevokeAuthorityRequest RevokeAuthorityResponse
/spire.api.server.localauthority.v1.LocalAuthority/TaintX509UpstreamAuthority TaintX509UpstreamAuthorityRequest TaintX509UpstreamAuthorityResponse
/spire.api.server.localauthority.v1.LocalAuthority/RevokeX509UpstreamAuthority RevokeX509UpstreamAuthorityRequest RevokeX509UpstreamAuthorityResponse
/spire.api.server.svid.v1.SVID/BatchNewX509SVID BatchNewX509SVIDRequest BatchNewX509SVIDResponse
/spire.api.server.svid.v1.SVID/NewJWTSVID NewJWTSVIDRequest NewJWTSVIDResponse
/spire.api.server.svid.v1.SVID/BatchNewWITSVID BatchNewWITSVIDRequest BatchNewWITSVIDResponse
/spire.api.server.svid.v1.SVID/MintWITSVID MintWITSVIDRequest MintWITSVIDResponse
/spire.api.server.entry.v1.Entry/CountEntries CountEntriesRequest CountEntriesResponse
/spire.api.server.entry.v1.Entry/ListEntries ListEntriesRequest ListEntriesResponse
/spire.api.server.entry.v1.Entry/GetEntry GetEntryRequest Entry
/spire.api.server.entry.v1.Entry/BatchCreateEntry BatchCreateEntryRequest BatchCreateEntryResponse
/spire.api.server.entry.v1.Entry/BatchUpdateEntry BatchUpdateEntryRequest BatchUpdateEntryResponse
/spire.api.server.entry.v1.Entry/BatchDeleteEntry BatchDeleteEntryRequest BatchDeleteEntryResponse
/spire.api.server.entry.v1.Entry/GetAuthorizedEntries GetAuthorizedEntriesRequest GetAuthorizedEntriesResponse
/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries stream SyncAuthorizedEntriesRequest stream SyncAuthorizedEntriesResponse
/spire.api.server.bundle.v1.Bundle/GetBundle GetBundleRequest Bundle
/spire.api.server.agent.v1.Agent/CountAgents CountAgentsRequest CountAgentsResponse
/spire.api.server.agent.v1.Agent/ListAgents ListAgentsRequest ListAgentsResponse
/spire.api.server.agent.v1.Agent/GetAgent GetAgentRequest Agent
/spire.api.server.agent.v1.Agent/DeleteAgent DeleteAgentRequest Empty
/spire.api.server.agent.v1.Agent/BanAgent BanAgentRequest Empty
/spire.api.server.agent.v1.Agent/AttestAgent stream AttestAgentRequest stream AttestAgentResponse
/spire.api.server.agent.v1.Agent/RenewAgent RenewAgentRequest RenewAgentResponse
/spire.api.server.agent.v1.Agent/PostStatus PostStatusRequest PostStatusResponse
/spire.api.server.agent.v1.Agent/CreateJoinToken CreateJoinTokenRequest JoinToken
/SpiffeWorkloadAPI/FetchX509SVID X509SVIDRequest stream X509SVIDResponse
/SpiffeWorkloadAPI/FetchX509Bundles X509BundlesRequest stream X509BundlesResponse
/SpiffeWorkloadAPI/FetchJWTSVID JWTSVIDRequest JWTSVIDResponse
/SpiffeWorkloadAPI/FetchJWTBundles JWTBundlesRequest stream JWTBundlesResponse
/SpiffeWorkloadAPI/ValidateJWTSVID ValidateJWTSVIDRequest ValidateJWTSVIDResponse
/SpiffeWorkloadAPI/FetchWITSVID WITSVIDRequest stream WITSVIDResponse
/SpiffeWorkloadAPI/FetchWITBundles WITBundlesRequest stream WITBundlesResponse
/grpc.health.v1.Health/Check HealthCheckRequest HealthCheckResponse
/grpc.health.v1.Health/Watch HealthCheckRequest stream HealthCheckResponse
/grpc.reflection.v1.ServerReflection/ServerReflectionInfo stream ServerReflectionRequest stream ServerReflectionResponse
/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo stream ServerReflectionRequest stream ServerReflectionResponse
`

/** The descriptors at hand are older than Envoy 1.40, which reads these numbers. */
const newerThanTheDescriptors: Readonly<Record<string, string | number>> = {
  'envoy.config.rbac.v3.SourcedMetadata.metadata_matcher': '1 MetadataMatcher',
  'envoy.config.rbac.v3.SourcedMetadata.metadata_source': '2 MetadataSource',
  'envoy.config.rbac.v3.MetadataSource.DYNAMIC': 0,
  'envoy.config.rbac.v3.MetadataSource.ROUTE': 1,
  'envoy.config.rbac.v3.Permission.sourced_metadata': '14 SourcedMetadata',
  'envoy.config.rbac.v3.Principal.sourced_metadata': '13 SourcedMetadata',
  'envoy.config.rbac.v3.Principal.custom': '14 TypedExtensionConfig',
  'envoy.extensions.rbac.principals.mtls_authenticated.v3.Config.san_matcher': '1 SubjectAltNameMatcher',
  'envoy.extensions.rbac.principals.mtls_authenticated.v3.Config.any_validated_client_certificate': '2 bool',
}

async function ourFiles(): Promise<DescFile[]> {
  const modules = await Promise.all(
    globSync('src/rpc/gen/**/*_pb.ts').map((path) => import(resolve(path)) as Promise<Record<string, unknown>>),
  )
  return modules.flatMap((module) =>
    Object.entries(module)
      .filter(([name]) => name.startsWith('file_'))
      .map(([, file]) => file as DescFile),
  )
}

/** Number and type of a field, without the packages of types: `2 repeated Selector`. */
function shapeOf(field: DescField): string {
  const repeated = field.proto.label === Label.REPEATED && field.fieldKind !== 'map' ? 'repeated ' : ''
  return `${field.number} ${repeated}${typeOf(field)}`
}

function typeOf(field: DescField): string {
  if (field.fieldKind === 'map')
    return `map<${ScalarType[field.mapKey].toLowerCase()},${lastOf(field.message?.typeName) ?? ScalarType[field.scalar!].toLowerCase()}>`
  return lastOf(field.message?.typeName ?? field.enum?.typeName) ?? FieldType[field.proto.type].toLowerCase()
}

function rowOf({ typeName, fields }: DescMessage): string {
  return `${typeName}: ${fields.map((field) => `${field.name}=${shapeOf(field)}`).join('; ')}`.trim()
}

function signatureOf({
  parent,
  name,
  input,
  output,
  methodKind,
}: Pick<DescMethod, 'parent' | 'name' | 'input' | 'output' | 'methodKind'>): string {
  const up = methodKind === 'bidi_streaming' || methodKind === 'client_streaming' ? 'stream ' : ''
  const down = methodKind === 'bidi_streaming' || methodKind === 'server_streaming' ? 'stream ' : ''
  return `/${parent.typeName}/${name} ${up}${lastOf(input.typeName)} ${down}${lastOf(output.typeName)}`
}

function rowsOf(table: string): string[] {
  return table.trim().split('\n').toSorted()
}

function lastOf(typeName: string | undefined): string | undefined {
  return typeName?.slice(typeName.lastIndexOf('.') + 1)
}

interface LoadedType {
  readonly name: string
  readonly field: readonly { name: string; number: number; label: string; type: string; typeName: string }[]
  readonly nestedType: readonly LoadedType[]
  readonly enumType: readonly LoadedEnum[]
  readonly options: { mapEntry?: boolean } | null
}

interface LoadedEnum {
  readonly name: string
  readonly value: readonly { name: string; number: number }[]
}

interface LoadedMethod {
  readonly path: string
  readonly requestStream: boolean
  readonly responseStream: boolean
  readonly requestType: { type: LoadedType }
  readonly responseType: { type: LoadedType }
}

/** The complete `.proto` files that the xDS client of the gRPC library carries. */
function publishedByEnvoy() {
  const home = createRequire(import.meta.url).resolve('@grpc/grpc-js-xds/package.json')
  const { loadSync } = createRequire(home)('@grpc/proto-loader') as {
    loadSync: (files: string[], options: object) => Record<string, unknown>
  }
  const folders = ['envoy-api', 'googleapis', 'protoc-gen-validate', 'xds'].map((name) => join(dirname(home), 'deps', name))
  const loaded = loadSync(envoyFiles, { includeDirs: folders, keepCase: true })
  const types = new Map<string, LoadedType>()
  const enumerations = new Map<string, LoadedEnum>()
  const methods: string[] = []
  const add = (name: string, type: LoadedType) => {
    types.set(name, type)
    for (const nested of type.nestedType) add(`${name}.${nested.name}`, nested)
    for (const nested of type.enumType) enumerations.set(`${name}.${nested.name}`, nested)
  }
  for (const [name, definition] of Object.entries(loaded)) {
    const { format, type } = definition as { format?: string; type?: LoadedType & LoadedEnum }
    if (type && format?.endsWith('EnumDescriptorProto')) enumerations.set(name, type)
    else if (type) add(name, type)
    else for (const method of Object.values(definition as Record<string, LoadedMethod>)) methods.push(loadedSignature(method))
  }
  return {
    fields: (typeName: string) => {
      const type = types.get(typeName)
      return type && new Map(type.field.map((field) => [field.name, loadedShape(type, field)]))
    },
    values: (typeName: string) => {
      const type = enumerations.get(typeName)
      return type && new Map(type.value.map(({ name, number }) => [name, number]))
    },
    methods,
  }
}

function loadedShape(type: LoadedType, { number, label, ...field }: LoadedType['field'][number]): string {
  const entry = type.nestedType.find(({ name, options }) => name === field.typeName && options?.mapEntry)
  if (entry) return `${number} map<${entry.field.map(loadedType).join(',')}>`
  return `${number} ${label === 'LABEL_REPEATED' ? 'repeated ' : ''}${loadedType(field)}`
}

function loadedType({ type, typeName }: { type: string; typeName: string }): string {
  return lastOf(typeName) || type.replace('TYPE_', '').toLowerCase()
}

function loadedSignature({ path, requestStream, responseStream, requestType, responseType }: LoadedMethod): string {
  return `${path} ${requestStream ? 'stream ' : ''}${requestType.type.name} ${responseStream ? 'stream ' : ''}${responseType.type.name}`
}

const envoyFiles = [
  'envoy/config/core/v3/address.proto',
  'envoy/config/core/v3/base.proto',
  'envoy/config/core/v3/extension.proto',
  'envoy/config/rbac/v3/rbac.proto',
  'envoy/config/route/v3/route_components.proto',
  'envoy/data/accesslog/v3/accesslog.proto',
  'envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto',
  'envoy/extensions/filters/http/jwt_authn/v3/config.proto',
  'envoy/extensions/filters/http/rbac/v3/rbac.proto',
  'envoy/extensions/filters/network/rbac/v3/rbac.proto',
  'envoy/extensions/path/match/uri_template/v3/uri_template_match.proto',
  'envoy/extensions/transport_sockets/tls/v3/common.proto',
  'envoy/extensions/transport_sockets/tls/v3/secret.proto',
  'envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.proto',
  'envoy/service/accesslog/v3/als.proto',
  'envoy/service/auth/v3/external_auth.proto',
  'envoy/service/discovery/v3/discovery.proto',
  'envoy/service/extension/v3/config_discovery.proto',
  'envoy/service/secret/v3/sds.proto',
  'envoy/type/matcher/v3/metadata.proto',
  'envoy/type/matcher/v3/path.proto',
  'envoy/type/matcher/v3/value.proto',
  'envoy/type/v3/http_status.proto',
  'envoy/type/v3/range.proto',
  'envoy/type/v3/semantic_version.proto',
  'google/rpc/error_details.proto',
  'google/rpc/status.proto',
]
