// A Workload API client on the published go-spiffe library. It prints one JSON object a line: what the library made
// of the answer, or `{"error": …, "code": …}` with exit code 1. Tests drive it as any workload would use the library.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sort"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"
)

const usage = `usage: client COMMAND [--socket unix:///path] [--timeout 10s] …
  version
  x509                                   fetch the X.509 context and verify each SVID against its own bundle
  jwt --audience A [--id ID]             fetch a JWT-SVID
  wit [--id ID]                          fetch WIT-SVIDs, and verify each with its private key and bundle
  reflect                                list the services of the socket, and the methods of the Workload API, by gRPC reflection
  validate --audience A --token T        have the Workload API validate a token
  bundles                                fetch the X.509 and the JWT bundles
  watch-x509 --updates N                 print N updates of the X.509 context as they arrive
  dial --address H:P --id ID [--get /p]  mutual TLS to a server that must be ID; with --get, one HTTP request over it
  serve --id ID                          mutual TLS server on a free port of the loopback that only ID may call: prints its address, then a line for
                                         each request and each refusal, until its input ends or --timeout
  judge                                  say of each document on standard input, a JSON object a line, whether the library accepts it
The socket defaults to SPIFFE_ENDPOINT_SOCKET.`

type options struct {
	socket, audience, token, id, address, get string
	updates                                   int
	timeout                                   time.Duration
}

var commands = map[string]func(context.Context, options) error{
	"version":    version,
	"x509":       fetchX509,
	"jwt":        fetchJWT,
	"validate":   validateJWT,
	"wit":        fetchWIT,
	"reflect":    reflectServices,
	"bundles":    fetchBundles,
	"watch-x509": watchX509,
	"dial":       dial,
	"serve":      serve,
	"judge":      judge,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	var o options
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.StringVar(&o.socket, "socket", "", "Workload API address")
	flags.StringVar(&o.audience, "audience", "", "audience of the token")
	flags.StringVar(&o.token, "token", "", "token to validate")
	flags.StringVar(&o.id, "id", "", "SPIFFE ID")
	flags.StringVar(&o.address, "address", "", "server to dial")
	flags.StringVar(&o.get, "get", "", "path to request")
	flags.IntVar(&o.updates, "updates", 1, "updates to wait for")
	flags.DurationVar(&o.timeout, "timeout", 10*time.Second, "deadline for everything")
	_ = flags.Parse(os.Args[2:])

	ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
	defer cancel()
	if err := commands[os.Args[1]](ctx, o); err != nil {
		show(map[string]any{"error": err.Error(), "code": code(err)})
		os.Exit(1)
	}
}

func version(context.Context, options) error {
	show(map[string]any{"client": "go-spiffe"})
	return nil
}

func fetchX509(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	found, err := client.FetchX509Context(ctx)
	if err != nil {
		return err
	}
	told, err := tellContext(found)
	if err != nil {
		return err
	}
	show(told)
	return nil
}

func fetchJWT(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	params := jwtsvid.Params{Audience: o.audience}
	if o.id != "" {
		if params.Subject, err = spiffeid.FromString(o.id); err != nil {
			return err
		}
	}
	svid, err := client.FetchJWTSVID(ctx, params)
	if err != nil {
		return err
	}
	// The library does not check signatures of what it fetches: do it here, against the bundles of the same API.
	bundles, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return err
	}
	if _, err := jwtsvid.ParseAndValidate(svid.Marshal(), bundles, []string{o.audience}); err != nil {
		return fmt.Errorf("the fetched token does not verify: %w", err)
	}
	show(tellJWT(svid))
	return nil
}

func validateJWT(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	svid, err := client.ValidateJWTSVID(ctx, o.token, o.audience)
	if err != nil {
		return err
	}
	show(tellJWT(svid))
	return nil
}

func fetchBundles(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	x509Bundles, err := client.FetchX509Bundles(ctx)
	if err != nil {
		return err
	}
	jwtBundles, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return err
	}
	show(map[string]any{"x509": tellX509Bundles(x509Bundles), "jwt": tellJWTBundles(jwtBundles)})
	return nil
}

func watchX509(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	w := &watcher{wanted: o.updates, stop: stop}
	err = client.WatchX509Context(ctx, w)
	switch {
	case w.failed != nil:
		return w.failed
	case w.seen == o.updates:
		return nil
	case w.lastError != nil:
		return fmt.Errorf("%d of %d updates: %w", w.seen, o.updates, w.lastError)
	default:
		return fmt.Errorf("%d of %d updates: %w", w.seen, o.updates, err)
	}
}

type watcher struct {
	wanted, seen      int
	stop              func()
	failed, lastError error
}

func (w *watcher) OnX509ContextUpdate(found *workloadapi.X509Context) {
	if w.seen == w.wanted || w.failed != nil {
		return
	}
	told, err := tellContext(found)
	if err != nil {
		w.failed = err
		w.stop()
		return
	}
	w.seen++
	told["update"] = w.seen
	show(told)
	if w.seen == w.wanted {
		w.stop()
	}
}

func (w *watcher) OnX509ContextWatchError(err error) {
	if !errors.Is(err, context.Canceled) {
		w.lastError = err
	}
}

func dial(ctx context.Context, o options) error {
	id, err := spiffeid.FromString(o.id)
	if err != nil {
		return err
	}
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(address(o)...))
	if err != nil {
		return err
	}
	defer source.Close()
	own, err := source.GetX509SVID()
	if err != nil {
		return err
	}
	dialer := tls.Dialer{Config: tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(id))}
	plain, err := dialer.DialContext(ctx, "tcp", o.address)
	if err != nil {
		return err
	}
	defer plain.Close()
	deadline, _ := ctx.Deadline()
	_ = plain.SetDeadline(deadline)
	connection := plain.(*tls.Conn)
	peer, err := x509svid.IDFromCert(connection.ConnectionState().PeerCertificates[0])
	if err != nil {
		return err
	}
	told := map[string]any{"self": own.ID.String(), "peer": peer.String()}
	if o.get != "" {
		if err := get(ctx, connection, o, told); err != nil {
			return err
		}
	} else if err := waitForRefusal(connection); err != nil {
		return err
	}
	show(told)
	return nil
}

// In TLS 1.3 a client learns that its certificate was refused only when it reads: give the server a moment to say so.
func waitForRefusal(connection *tls.Conn) error {
	_ = connection.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	_, err := connection.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func get(ctx context.Context, connection *tls.Conn, o options, told map[string]any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+o.address+o.get, nil)
	if err != nil {
		return err
	}
	request.Close = true
	if err := request.Write(connection); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64*1024))
	if err != nil {
		return err
	}
	told["status"] = response.StatusCode
	told["body"] = string(body)
	return nil
}

func serve(ctx context.Context, o options) error {
	id, err := spiffeid.FromString(o.id)
	if err != nil {
		return err
	}
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(address(o)...))
	if err != nil {
		return err
	}
	defer source.Close()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(id)))
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, ErrorLog: log.New(refusals{}, "", 0), Handler: http.HandlerFunc(greet)}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Close()
	}()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	show(map[string]any{"address": listener.Addr().String()})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func greet(response http.ResponseWriter, request *http.Request) {
	peer, err := x509svid.IDFromCert(request.TLS.PeerCertificates[0])
	if err != nil {
		http.Error(response, err.Error(), http.StatusForbidden)
		return
	}
	show(map[string]any{"request": request.URL.Path, "peer": peer.String()})
	fmt.Fprintf(response, "hello %s", peer)
}

// refusals prints what the HTTP server logs: handshakes that came to nothing, and why.
type refusals struct{}

func (refusals) Write(line []byte) (int, error) {
	show(map[string]any{"refused": string(bytes.TrimSpace(line))})
	return len(line), nil
}

func connect(ctx context.Context, o options) (*workloadapi.Client, error) {
	return workloadapi.New(ctx, address(o)...)
}

func address(o options) []workloadapi.ClientOption {
	if o.socket == "" {
		return nil
	}
	return []workloadapi.ClientOption{workloadapi.WithAddr(o.socket)}
}

// tellContext verifies each SVID against the bundle of its own trust domain before it says anything about it.
func tellContext(found *workloadapi.X509Context) (map[string]any, error) {
	svids := []map[string]any{}
	for _, svid := range found.SVIDs {
		id, _, err := x509svid.Verify(svid.Certificates, found.Bundles)
		if err != nil {
			return nil, fmt.Errorf("%s does not verify: %w", svid.ID, err)
		}
		leaf := svid.Certificates[0]
		svids = append(svids, map[string]any{
			"id":        id.String(),
			"serial":    leaf.SerialNumber.Text(16),
			"notBefore": leaf.NotBefore.UTC().Format(time.RFC3339),
			"notAfter":  leaf.NotAfter.UTC().Format(time.RFC3339),
			"chain":     len(svid.Certificates),
			"hint":      svid.Hint,
			"dnsNames":  names(leaf),
		})
	}
	return map[string]any{"svids": svids, "bundles": tellX509Bundles(found.Bundles)}, nil
}

func names(leaf *x509.Certificate) []string {
	if leaf.DNSNames == nil {
		return []string{}
	}
	return leaf.DNSNames
}

func tellX509Bundles(set *x509bundle.Set) map[string]int {
	sizes := map[string]int{}
	for _, bundle := range set.Bundles() {
		sizes[bundle.TrustDomain().Name()] = len(bundle.X509Authorities())
	}
	return sizes
}

func tellJWTBundles(set *jwtbundle.Set) map[string][]string {
	keys := map[string][]string{}
	for _, bundle := range set.Bundles() {
		ids := []string{}
		for id := range bundle.JWTAuthorities() {
			ids = append(ids, id)
		}
		sort.Strings(ids)
		keys[bundle.TrustDomain().Name()] = ids
	}
	return keys
}

func tellJWT(svid *jwtsvid.SVID) map[string]any {
	return map[string]any{
		"id":       svid.ID.String(),
		"audience": svid.Audience,
		"expiry":   svid.Expiry.UTC().Format(time.RFC3339),
		"hint":     svid.Hint,
		"claims":   svid.Claims,
		"token":    svid.Marshal(),
	}
}

func code(err error) string {
	if found, ok := status.FromError(err); ok {
		return found.Code().String()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "DeadlineExceeded"
	}
	return ""
}

func show(value any) {
	if err := json.NewEncoder(os.Stdout).Encode(value); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
