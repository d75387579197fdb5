package main

import (
	"context"
	"encoding/base64"
	"errors"
	"os"

	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func health(ctx context.Context, connection *grpc.ClientConn, _ options) error {
	answer, err := grpc_health_v1.NewHealthClient(connection).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	show(map[string]any{"status": answer.Status.String()})
	return nil
}

func getBundle(ctx context.Context, connection *grpc.ClientConn, o options) error {
	bundle, err := bundlev1.NewBundleClient(connection).GetBundle(ctx, &bundlev1.GetBundleRequest{})
	if err != nil {
		return err
	}
	var chain [][]byte
	authorities := []string{}
	for _, authority := range bundle.X509Authorities {
		chain = append(chain, authority.Asn1)
		authorities = append(authorities, base64.StdEncoding.EncodeToString(authority.Asn1))
	}
	keys := []string{}
	for _, key := range bundle.JwtAuthorities {
		keys = append(keys, key.KeyId)
	}
	witKeys := []string{}
	for _, key := range bundle.WitAuthorities {
		witKeys = append(witKeys, key.KeyId)
	}
	if o.out != "" {
		if err := os.WriteFile(o.out, pemOf(chain), 0o600); err != nil {
			return err
		}
	}
	show(map[string]any{
		"trustDomain": bundle.TrustDomain, "x509Authorities": authorities, "jwtKeys": keys, "witKeys": witKeys,
		"sequence": bundle.SequenceNumber, "refreshHint": bundle.RefreshHint,
	})
	return nil
}

func createToken(ctx context.Context, connection *grpc.ClientConn, o options) error {
	request := &agentv1.CreateJoinTokenRequest{Ttl: int32(o.ttl), Token: o.token}
	if o.id != "" {
		request.AgentId = spiffeID(o.id)
	}
	token, err := agentv1.NewAgentClient(connection).CreateJoinToken(ctx, request)
	if err != nil {
		return err
	}
	show(map[string]any{"token": token.Value, "expiresAt": token.ExpiresAt})
	return nil
}

func listAgents(ctx context.Context, connection *grpc.ClientConn, _ options) error {
	client := agentv1.NewAgentClient(connection)
	agents := []*types.Agent{}
	for page := ""; ; {
		answer, err := client.ListAgents(ctx, &agentv1.ListAgentsRequest{PageSize: 100, PageToken: page})
		if err != nil {
			return err
		}
		agents = append(agents, answer.Agents...)
		if page = answer.NextPageToken; page == "" {
			break
		}
	}
	show(map[string]any{"agents": allAsJSON(agents)})
	return nil
}

func attest(ctx context.Context, connection *grpc.ClientConn, o options) error {
	roots, err := readCertificates(o.bundle)
	if err != nil {
		return err
	}
	key, csr, err := newKeyAndRequest()
	if err != nil {
		return err
	}
	stream, err := agentv1.NewAgentClient(connection).AttestAgent(ctx)
	if err != nil {
		return err
	}
	// A refusal reaches Recv with its status; Send says only that the stream ended.
	_ = stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{Params: &agentv1.AttestAgentRequest_Params{
		Data:   &types.AttestationData{Type: "join_token", Payload: []byte(o.token)},
		Params: &agentv1.AgentX509SVIDParams{Csr: csr},
	}}})
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	svid := answer.GetResult().GetSvid()
	if svid == nil {
		return errors.New("the answer holds no result")
	}
	leaf, err := verifyFor(key, idText(svid.Id), svid.CertChain, roots)
	if err != nil {
		return err
	}
	if err := writeAgent(o.out, leaf.URIs[0].String(), key, svid.CertChain); err != nil {
		return err
	}
	told := tellCertificate(leaf, svid.CertChain)
	told["reattestable"] = answer.GetResult().Reattestable
	show(told)
	return nil
}

func renew(ctx context.Context, connection *grpc.ClientConn, o options) error {
	roots, err := readCertificates(o.bundle)
	if err != nil {
		return err
	}
	key, csr, err := newKeyAndRequest()
	if err != nil {
		return err
	}
	answer, err := agentv1.NewAgentClient(connection).RenewAgent(ctx, &agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{Csr: csr}})
	if err != nil {
		return err
	}
	svid := answer.GetSvid()
	leaf, err := verifyFor(key, idText(svid.GetId()), svid.GetCertChain(), roots)
	if err != nil {
		return err
	}
	if err := writeAgent(o.agent, leaf.URIs[0].String(), key, svid.CertChain); err != nil {
		return err
	}
	show(tellCertificate(leaf, svid.CertChain))
	return nil
}
