package main

import (
	"context"
	"fmt"

	localauthorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// deeds are what the operators' command of SPIRE asks of one kind of authority, each with the id that it is told.
type deeds map[string]func(ctx context.Context, client localauthorityv1.LocalAuthorityClient, id string) (proto.Message, error)

var authorityDeeds = map[string]deeds{
	"x509": {
		"show": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, _ string) (proto.Message, error) {
			return c.GetX509AuthorityState(ctx, &localauthorityv1.GetX509AuthorityStateRequest{})
		},
		"prepare": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, _ string) (proto.Message, error) {
			return c.PrepareX509Authority(ctx, &localauthorityv1.PrepareX509AuthorityRequest{})
		},
		"activate": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, id string) (proto.Message, error) {
			return c.ActivateX509Authority(ctx, &localauthorityv1.ActivateX509AuthorityRequest{AuthorityId: id})
		},
		"taint": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, id string) (proto.Message, error) {
			return c.TaintX509Authority(ctx, &localauthorityv1.TaintX509AuthorityRequest{AuthorityId: id})
		},
		"revoke": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, id string) (proto.Message, error) {
			return c.RevokeX509Authority(ctx, &localauthorityv1.RevokeX509AuthorityRequest{AuthorityId: id})
		},
	},
	"jwt": {
		"show": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, _ string) (proto.Message, error) {
			return c.GetJWTAuthorityState(ctx, &localauthorityv1.GetJWTAuthorityStateRequest{})
		},
		"prepare": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, _ string) (proto.Message, error) {
			return c.PrepareJWTAuthority(ctx, &localauthorityv1.PrepareJWTAuthorityRequest{})
		},
		"activate": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, id string) (proto.Message, error) {
			return c.ActivateJWTAuthority(ctx, &localauthorityv1.ActivateJWTAuthorityRequest{AuthorityId: id})
		},
		"taint": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, id string) (proto.Message, error) {
			return c.TaintJWTAuthority(ctx, &localauthorityv1.TaintJWTAuthorityRequest{AuthorityId: id})
		},
		"revoke": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, id string) (proto.Message, error) {
			return c.RevokeJWTAuthority(ctx, &localauthorityv1.RevokeJWTAuthorityRequest{AuthorityId: id})
		},
	},
	"wit": {
		"show": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, _ string) (proto.Message, error) {
			return c.GetWITAuthorityState(ctx, &localauthorityv1.GetWITAuthorityStateRequest{})
		},
		"prepare": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, _ string) (proto.Message, error) {
			return c.PrepareWITAuthority(ctx, &localauthorityv1.PrepareWITAuthorityRequest{})
		},
		"activate": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, id string) (proto.Message, error) {
			return c.ActivateWITAuthority(ctx, &localauthorityv1.ActivateWITAuthorityRequest{AuthorityId: id})
		},
		"taint": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, id string) (proto.Message, error) {
			return c.TaintWITAuthority(ctx, &localauthorityv1.TaintWITAuthorityRequest{AuthorityId: id})
		},
		"revoke": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, id string) (proto.Message, error) {
			return c.RevokeWITAuthority(ctx, &localauthorityv1.RevokeWITAuthorityRequest{AuthorityId: id})
		},
	},
	"upstream": {
		"taint": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, id string) (proto.Message, error) {
			return c.TaintX509UpstreamAuthority(ctx, &localauthorityv1.TaintX509UpstreamAuthorityRequest{SubjectKeyId: id})
		},
		"revoke": func(ctx context.Context, c localauthorityv1.LocalAuthorityClient, id string) (proto.Message, error) {
			return c.RevokeX509UpstreamAuthority(ctx, &localauthorityv1.RevokeX509UpstreamAuthorityRequest{SubjectKeyId: id})
		},
	},
}

func authority(name string) command {
	return func(ctx context.Context, connection *grpc.ClientConn, o options) error {
		deed := authorityDeeds[o.kind][name]
		if deed == nil {
			return fmt.Errorf("there is no `authority %s --kind %s`", name, o.kind)
		}
		answer, err := deed(ctx, localauthorityv1.NewLocalAuthorityClient(connection), o.id)
		if err != nil {
			return err
		}
		show(asJSON(answer))
		return nil
	}
}
