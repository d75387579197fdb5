package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/exp/bundle/witbundle"
	"github.com/spiffe/go-spiffe/v2/exp/svid/witsvid"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// A question of the judge: one document, and what it is to be judged with. Bytes are base64, as encoding/json has them.
type question struct {
	Kind string `json:"kind"`
	// Of a SPIFFE ID or a token.
	Text string `json:"text"`
	// DER, leaf first.
	Chain [][]byte `json:"chain"`
	// DER.
	Roots [][]byte `json:"roots"`
	// A JWK set or a SPIFFE bundle document.
	Document    string `json:"document"`
	TrustDomain string `json:"trustDomain"`
	Audience    string `json:"audience"`
}

// judge answers a question a line with a line: what the library made of it, or why it refused.
func judge(_ context.Context, _ options) error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var asked question
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return err
		}
		found, err := answer(asked)
		if err != nil {
			found = map[string]any{"refused": err.Error()}
		}
		show(found)
	}
	return lines.Err()
}

func answer(asked question) (map[string]any, error) {
	if asked.Kind == "id" {
		id, err := spiffeid.FromString(asked.Text)
		if err != nil {
			return nil, err
		}
		return map[string]any{"id": id.String(), "trustDomain": id.TrustDomain().Name(), "path": id.Path()}, nil
	}
	domain, err := spiffeid.TrustDomainFromString(asked.TrustDomain)
	if err != nil {
		return nil, err
	}
	switch asked.Kind {
	case "x509":
		return answerX509(asked, domain)
	case "jwt":
		return answerJWT(asked, domain)
	case "wit":
		return answerWIT(asked, domain)
	case "bundle":
		return answerBundle(asked, domain)
	}
	return nil, fmt.Errorf("no such kind: %q", asked.Kind)
}

func answerX509(asked question, domain spiffeid.TrustDomain) (map[string]any, error) {
	bundle := x509bundle.New(domain)
	for _, der := range asked.Roots {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		bundle.AddX509Authority(root)
	}
	id, _, err := x509svid.ParseAndVerify(asked.Chain, bundle, x509svid.WithTime(time.Now()))
	if err != nil {
		return nil, err
	}
	return map[string]any{"id": id.String()}, nil
}

func answerJWT(asked question, domain spiffeid.TrustDomain) (map[string]any, error) {
	bundle, err := jwtbundle.Parse(domain, []byte(asked.Document))
	if err != nil {
		return nil, err
	}
	svid, err := jwtsvid.ParseAndValidate(asked.Text, bundle, []string{asked.Audience})
	if err != nil {
		return nil, err
	}
	return map[string]any{"id": svid.ID.String()}, nil
}

func answerWIT(asked question, domain spiffeid.TrustDomain) (map[string]any, error) {
	bundle, err := witbundle.Parse(domain, []byte(asked.Document))
	if err != nil {
		return nil, err
	}
	svid, err := witsvid.ParseAndValidate(asked.Text, bundle)
	if err != nil {
		return nil, err
	}
	return map[string]any{"id": svid.ID.String()}, nil
}

func answerBundle(asked question, domain spiffeid.TrustDomain) (map[string]any, error) {
	bundle, err := spiffebundle.Parse(domain, []byte(asked.Document))
	if err != nil {
		return nil, err
	}
	sequence, _ := bundle.SequenceNumber()
	hint, _ := bundle.RefreshHint()
	return map[string]any{
		"x509":     len(bundle.X509Authorities()),
		"jwt":      len(bundle.JWTAuthorities()),
		"wit":      len(bundle.WITAuthorities()),
		"sequence": fmt.Sprint(sequence),
		"hint":     hint.Seconds(),
	}, nil
}
