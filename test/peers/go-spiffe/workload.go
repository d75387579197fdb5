package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/exp/svid/witsvid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// fetchWIT verifies each WIT-SVID against the bundles of the same API, and its private key against the key that it is bound to.
func fetchWIT(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	svids, err := client.FetchWITSVIDs(ctx, o.id)
	if err != nil {
		return err
	}
	bundles, err := client.FetchWITBundles(ctx)
	if err != nil {
		return err
	}
	told := []map[string]any{}
	for _, svid := range svids {
		verified, err := witsvid.ParseAndValidate(svid.Marshal(), bundles)
		if err != nil {
			return fmt.Errorf("the fetched token does not verify: %w", err)
		}
		signer, ok := svid.PrivateKey.(crypto.Signer)
		if !ok {
			return errors.New("the private key cannot sign")
		}
		public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !public.Equal(verified.PublicKey) {
			return errors.New("the token is bound to another key")
		}
		told = append(told, map[string]any{"id": verified.ID.String(), "hint": svid.Hint, "expiry": verified.Expiry.UTC().Format(time.RFC3339)})
	}
	show(map[string]any{"svids": told})
	return nil
}

// reflectServices asks the endpoint which services it serves, and for the file of the Workload API.
func reflectServices(ctx context.Context, o options) error {
	target := o.socket
	if target == "" {
		target = os.Getenv("SPIFFE_ENDPOINT_SOCKET")
	}
	channel, err := grpc.NewClient("unix:"+strings.TrimPrefix(target, "unix://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer channel.Close()
	stream, err := grpc_reflection_v1.NewServerReflectionClient(channel).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	ask := func(request *grpc_reflection_v1.ServerReflectionRequest) (*grpc_reflection_v1.ServerReflectionResponse, error) {
		if err := stream.Send(request); err != nil {
			return nil, err
		}
		return stream.Recv()
	}
	listed, err := ask(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{ListServices: "*"},
	})
	if err != nil {
		return err
	}
	services := []string{}
	for _, service := range listed.GetListServicesResponse().GetService() {
		services = append(services, service.GetName())
	}
	sort.Strings(services)
	described, err := ask(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "SpiffeWorkloadAPI"},
	})
	if err != nil {
		return err
	}
	methods, err := methodsIn(described.GetFileDescriptorResponse().GetFileDescriptorProto())
	if err != nil {
		return err
	}
	show(map[string]any{"services": services, "methods": methods})
	return stream.CloseSend()
}

// methodsIn links the files, as a tool that calls by reflection does, and names the methods of the Workload API.
func methodsIn(files [][]byte) ([]string, error) {
	set := &descriptorpb.FileDescriptorSet{}
	for _, bytes := range files {
		file := &descriptorpb.FileDescriptorProto{}
		if err := proto.Unmarshal(bytes, file); err != nil {
			return nil, err
		}
		set.File = append(set.File, file)
	}
	linked, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, err
	}
	found, err := linked.FindDescriptorByName("SpiffeWorkloadAPI")
	if err != nil {
		return nil, err
	}
	names := []string{}
	methods := found.(protoreflect.ServiceDescriptor).Methods()
	for i := range methods.Len() {
		names = append(names, string(methods.Get(i).Name()))
	}
	return names, nil
}
