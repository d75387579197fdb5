package main

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"

	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"google.golang.org/grpc"
)

func mint(ctx context.Context, connection *grpc.ClientConn, o options) error {
	roots, err := readCertificates(o.bundle)
	if err != nil {
		return err
	}
	request := &svidv1.BatchNewX509SVIDRequest{}
	var keys []*ecdsa.PrivateKey
	for _, entry := range o.entries {
		key, csr, err := newKeyAndRequest()
		if err != nil {
			return err
		}
		keys = append(keys, key)
		request.Params = append(request.Params, &svidv1.NewX509SVIDParams{EntryId: entry, Csr: csr})
	}
	answer, err := svidv1.NewSVIDClient(connection).BatchNewX509SVID(ctx, request)
	if err != nil {
		return err
	}
	if len(answer.Results) != len(keys) {
		return fmt.Errorf("%d results for %d requests", len(answer.Results), len(keys))
	}
	svids := []map[string]any{}
	for i, result := range answer.Results {
		if err := checked(result.Status); err != nil {
			return err
		}
		leaf, err := verifyFor(keys[i], idText(result.GetSvid().GetId()), result.GetSvid().GetCertChain(), roots)
		if err != nil {
			return err
		}
		svids = append(svids, tellCertificate(leaf, result.Svid.CertChain))
	}
	show(map[string]any{"svids": svids})
	return nil
}

func newJWT(ctx context.Context, connection *grpc.ClientConn, o options) error {
	if len(o.entries) != 1 {
		return errors.New("expected one --entry")
	}
	answer, err := svidv1.NewSVIDClient(connection).NewJWTSVID(ctx, &svidv1.NewJWTSVIDRequest{EntryId: o.entries[0], Audience: o.audiences})
	if err != nil {
		return err
	}
	svid := answer.GetSvid()
	show(map[string]any{"id": idText(svid.GetId()), "token": svid.GetToken(), "issuedAt": svid.GetIssuedAt(), "expiresAt": svid.GetExpiresAt()})
	return nil
}
