// A client of SPIRE's server API on the published spire-api-sdk: what an unmodified SPIRE agent or CLI puts on the wire.
// It prints one JSON object a line, or `{"error": …, "code": …}` with exit code 1, and then the `reason` why an agent is refused, if one was told.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const usage = `usage: client COMMAND CONNECTION [flags]
CONNECTION  --socket PATH                                          the operators' socket, without TLS
            --address H:P --bundle FILE [--agent DIR]              TLS; the server must be spiffe://<trust domain>/spire/server (--trust-domain,
                                                                   or the URI name of the bundle's first certificate); with --agent,
                                                                   the caller is the certificate that attest wrote to DIR
  version
  health                                                           grpc.health.v1
  bundle  [--out FILE]                                             Bundle.GetBundle
  token   [--ttl 600] [--id ID]                                    Agent.CreateJoinToken
  agents                                                           Agent.ListAgents
  attest  --token T --out DIR                                      Agent.AttestAgent; writes agent.crt agent.key agent.id
  renew   --agent DIR                                              Agent.RenewAgent; replaces agent.crt and agent.key
  entries create --id ID --parent ID --selector T:V … [--x509-ttl S] [--jwt-ttl S] [--dns NAME …] [--hint H] [--admin] [--downstream]
  entries list [--id ID] [--parent ID]                             Entry.ListEntries, all pages
  entries delete --entry E                                         Entry.BatchDeleteEntry
  authorized                                                       Entry.GetAuthorizedEntries
  sync                                                             Entry.SyncAuthorizedEntries, as SPIRE's agent asks
  mint    --entry E …                                              SVID.BatchNewX509SVID, verified against --bundle
  jwt     --entry E --audience A …                                 SVID.NewJWTSVID
  authority show|prepare|activate|taint|revoke --kind x509|jwt|wit|upstream [--id ID]
                                                                   LocalAuthority, every method; --id names the authority`

type options struct {
	socket, address, bundle, trustDomain, agent, out, token, id, parent, hint, kind string
	ttl, x509TTL, jwtTTL                                                            int
	admin, downstream                                                               bool
	selectors, dns, entries, audiences                                              list
	timeout                                                                         time.Duration
}

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

type command func(context.Context, *grpc.ClientConn, options) error

var commands = map[string]command{
	"health":         health,
	"bundle":         getBundle,
	"token":          createToken,
	"agents":         listAgents,
	"attest":         attest,
	"renew":          renew,
	"entries create": createEntry,
	"entries list":   listEntries,
	"entries delete": deleteEntry,
	"authorized":     authorizedEntries,
	"sync":           syncEntries,
	"mint":           mint,
	"jwt":            newJWT,

	"authority show":     authority("show"),
	"authority prepare":  authority("prepare"),
	"authority activate": authority("activate"),
	"authority taint":    authority("taint"),
	"authority revoke":   authority("revoke"),
}

func main() {
	name, rest := commandName(os.Args[1:])
	if name == "version" {
		show(map[string]any{"client": "spire-api"})
		return
	}
	run := commands[name]
	if run == nil {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	o := parse(name, rest)
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
	defer cancel()
	if err := connectAndRun(ctx, run, o); err != nil {
		found, _ := status.FromError(err)
		told := map[string]any{"error": err.Error(), "code": found.Code().String()}
		for _, detail := range found.Details() {
			if denied, ok := detail.(*types.PermissionDeniedDetails); ok {
				told["reason"] = denied.Reason.String()
			}
		}
		show(told)
		os.Exit(1)
	}
}

func commandName(args []string) (string, []string) {
	switch {
	case len(args) == 0:
		return "", nil
	case (args[0] == "entries" || args[0] == "authority") && len(args) > 1:
		return args[0] + " " + args[1], args[2:]
	default:
		return args[0], args[1:]
	}
}

func parse(name string, args []string) options {
	var o options
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	flags.StringVar(&o.socket, "socket", "", "operators' socket")
	flags.StringVar(&o.address, "address", "", "server, host:port")
	flags.StringVar(&o.bundle, "bundle", "", "trust bundle, PEM")
	flags.StringVar(&o.trustDomain, "trust-domain", "", "trust domain of the server")
	flags.StringVar(&o.agent, "agent", "", "folder with agent.crt and agent.key")
	flags.StringVar(&o.out, "out", "", "file or folder to write")
	flags.StringVar(&o.token, "token", "", "join token")
	flags.StringVar(&o.id, "id", "", "SPIFFE ID, or id of an authority")
	flags.StringVar(&o.kind, "kind", "", "x509, jwt, wit or upstream")
	flags.StringVar(&o.parent, "parent", "", "parent SPIFFE ID")
	flags.StringVar(&o.hint, "hint", "", "hint of the entry")
	flags.IntVar(&o.ttl, "ttl", 600, "lifetime of the token, seconds")
	flags.IntVar(&o.x509TTL, "x509-ttl", 0, "X509-SVID lifetime, seconds")
	flags.IntVar(&o.jwtTTL, "jwt-ttl", 0, "JWT-SVID lifetime, seconds")
	flags.BoolVar(&o.admin, "admin", false, "admin entry")
	flags.BoolVar(&o.downstream, "downstream", false, "downstream entry")
	flags.Var(&o.selectors, "selector", "type:value, repeatable")
	flags.Var(&o.dns, "dns", "DNS name, repeatable")
	flags.Var(&o.entries, "entry", "entry id, repeatable")
	flags.Var(&o.audiences, "audience", "audience, repeatable")
	flags.DurationVar(&o.timeout, "timeout", 15*time.Second, "deadline for everything")
	_ = flags.Parse(args)
	return o
}

func connectAndRun(ctx context.Context, run command, o options) error {
	connection, err := connect(o)
	if err != nil {
		return err
	}
	defer connection.Close()
	return run(ctx, connection, o)
}

// checked turns the status of one result of a batch into an error.
func checked(s *types.Status) error {
	if code := codes.Code(s.GetCode()); code != codes.OK {
		return status.Error(code, s.GetMessage())
	}
	return nil
}

func spiffeID(text string) *types.SPIFFEID {
	domain, path, found := strings.Cut(strings.TrimPrefix(text, "spiffe://"), "/")
	if found {
		path = "/" + path
	}
	return &types.SPIFFEID{TrustDomain: domain, Path: path}
}

func idText(id *types.SPIFFEID) string {
	return "spiffe://" + id.GetTrustDomain() + id.GetPath()
}

func show(value any) {
	if err := json.NewEncoder(os.Stdout).Encode(value); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// asJSON is a message as protobuf's own JSON mapping writes it, default values included.
func asJSON(message proto.Message) json.RawMessage {
	text, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(message)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return text
}

func allAsJSON[M proto.Message](messages []M) []json.RawMessage {
	texts := []json.RawMessage{}
	for _, message := range messages {
		texts = append(texts, asJSON(message))
	}
	return texts
}
