package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
)

func createEntry(ctx context.Context, connection *grpc.ClientConn, o options) error {
	entry := &types.Entry{
		SpiffeId: spiffeID(o.id), ParentId: spiffeID(o.parent), DnsNames: o.dns, Hint: o.hint,
		X509SvidTtl: int32(o.x509TTL), JwtSvidTtl: int32(o.jwtTTL), Admin: o.admin, Downstream: o.downstream,
	}
	for _, text := range o.selectors {
		kind, value, found := strings.Cut(text, ":")
		if !found {
			return fmt.Errorf("`%s` is not type:value", text)
		}
		entry.Selectors = append(entry.Selectors, &types.Selector{Type: kind, Value: value})
	}
	answer, err := entryv1.NewEntryClient(connection).BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{entry}})
	if err != nil {
		return err
	}
	if len(answer.Results) != 1 {
		return fmt.Errorf("%d results for one entry", len(answer.Results))
	}
	if err := checked(answer.Results[0].Status); err != nil {
		return err
	}
	show(map[string]any{"entry": asJSON(answer.Results[0].Entry)})
	return nil
}

func listEntries(ctx context.Context, connection *grpc.ClientConn, o options) error {
	client := entryv1.NewEntryClient(connection)
	filter := &entryv1.ListEntriesRequest_Filter{}
	if o.id != "" {
		filter.BySpiffeId = spiffeID(o.id)
	}
	if o.parent != "" {
		filter.ByParentId = spiffeID(o.parent)
	}
	entries := []*types.Entry{}
	for page := ""; ; {
		answer, err := client.ListEntries(ctx, &entryv1.ListEntriesRequest{Filter: filter, PageSize: 100, PageToken: page})
		if err != nil {
			return err
		}
		entries = append(entries, answer.Entries...)
		if page = answer.NextPageToken; page == "" {
			break
		}
	}
	show(map[string]any{"entries": allAsJSON(entries)})
	return nil
}

func deleteEntry(ctx context.Context, connection *grpc.ClientConn, o options) error {
	answer, err := entryv1.NewEntryClient(connection).BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: o.entries})
	if err != nil {
		return err
	}
	for _, result := range answer.Results {
		if err := checked(result.Status); err != nil {
			return err
		}
	}
	show(map[string]any{"deleted": len(answer.Results)})
	return nil
}

func authorizedEntries(ctx context.Context, connection *grpc.ClientConn, _ options) error {
	answer, err := entryv1.NewEntryClient(connection).GetAuthorizedEntries(ctx, &entryv1.GetAuthorizedEntriesRequest{OutputMask: agentMask})
	if err != nil {
		return err
	}
	show(map[string]any{"entries": allAsJSON(answer.Entries)})
	return nil
}

// syncEntries asks twice on one stream, as SPIRE's agent does: first for what there is, which a server with few entries answers in
// full and one with many as revisions; then for the entries behind the revisions, a page at a time.
func syncEntries(ctx context.Context, connection *grpc.ClientConn, _ options) error {
	stream, err := entryv1.NewEntryClient(connection).SyncAuthorizedEntries(ctx)
	if err != nil {
		return err
	}
	_ = stream.Send(&entryv1.SyncAuthorizedEntriesRequest{OutputMask: agentMask})
	first, err := receiveAll(stream)
	if err != nil {
		return err
	}
	entries := first.entries
	for need := first.revised; len(need) > 0; {
		page := need[:min(len(need), first.page)]
		need = need[len(page):]
		_ = stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: page})
		answer, err := receiveAll(stream)
		if err != nil {
			return err
		}
		entries = append(entries, answer.entries...)
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("expected the end of the stream, found %v", err)
	}
	show(map[string]any{"entries": allAsJSON(entries), "revisions": len(first.revised)})
	return nil
}

type received struct {
	entries []*types.Entry
	revised []string
	page    int
}

func receiveAll(stream entryv1.Entry_SyncAuthorizedEntriesClient) (received, error) {
	var all received
	for {
		answer, err := stream.Recv()
		if err != nil {
			return all, err
		}
		all.entries = append(all.entries, answer.Entries...)
		for _, revision := range answer.EntryRevisions {
			all.revised = append(all.revised, revision.Id)
		}
		all.page = max(all.page, len(answer.EntryRevisions))
		if !answer.More {
			return all, nil
		}
	}
}

// The fields that SPIRE's agent asks for.
var agentMask = &types.EntryMask{
	SpiffeId: true, Selectors: true, FederatesWith: true, Admin: true, Downstream: true,
	RevisionNumber: true, StoreSvid: true, Hint: true, CreatedAt: true,
}
