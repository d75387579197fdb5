package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

func connect(o options) (*grpc.ClientConn, error) {
	if o.socket != "" {
		return grpc.NewClient("unix:"+strings.TrimPrefix(o.socket, "unix://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	if o.address == "" {
		return nil, errors.New("expected --socket, or --address with --bundle")
	}
	roots, err := readCertificates(o.bundle)
	if err != nil {
		return nil, err
	}
	config, err := serverMustBe(o.trustDomain, roots)
	if err != nil {
		return nil, err
	}
	if o.agent != "" {
		own, err := tls.LoadX509KeyPair(filepath.Join(o.agent, "agent.crt"), filepath.Join(o.agent, "agent.key"))
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{own}
	}
	return grpc.NewClient("passthrough:///"+o.address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
}

// serverMustBe accepts a server whose chain ends in these roots and whose ID is `/spire/server` in the trust domain.
// crypto/tls compares host names, which an SVID does not have, so its own check is replaced by ours.
func serverMustBe(trustDomain string, roots []*x509.Certificate) (*tls.Config, error) {
	if trustDomain == "" {
		if len(roots[0].URIs) != 1 {
			return nil, errors.New("the first certificate of the bundle does not name its trust domain: expected --trust-domain")
		}
		trustDomain = roots[0].URIs[0].Host
	}
	want := "spiffe://" + trustDomain + "/spire/server"
	return &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // replaced by VerifyPeerCertificate
		MinVersion:         tls.VersionTLS12,
		VerifyPeerCertificate: func(chain [][]byte, _ [][]*x509.Certificate) error {
			leaf, err := verify(chain, roots)
			if err != nil {
				return err
			}
			if found := leaf.URIs[0].String(); found != want {
				return fmt.Errorf("the server is %s, expected %s", found, want)
			}
			return nil
		},
	}, nil
}

// verify checks an X509-SVID chain, leaf first, against roots.
func verify(chain [][]byte, roots []*x509.Certificate) (*x509.Certificate, error) {
	if len(chain) == 0 {
		return nil, errors.New("the chain is empty")
	}
	trusted, between := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range roots {
		trusted.AddCert(root)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, err
	}
	for _, der := range chain[1:] {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		between.AddCert(certificate)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: trusted, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return nil, err
	}
	if leaf.IsCA {
		return nil, errors.New("the leaf is a CA")
	}
	if len(leaf.URIs) != 1 {
		return nil, fmt.Errorf("the leaf has %d URI names, expected one", len(leaf.URIs))
	}
	return leaf, nil
}

// verifyFor checks as well that the certificate is for this key and this SPIFFE ID.
func verifyFor(key *ecdsa.PrivateKey, id string, chain [][]byte, roots []*x509.Certificate) (*x509.Certificate, error) {
	leaf, err := verify(chain, roots)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("the certificate is for another key")
	}
	if found := leaf.URIs[0].String(); found != id {
		return nil, fmt.Errorf("the certificate says %s, the message says %s", found, id)
	}
	return leaf, nil
}

func newKeyAndRequest() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	return key, request, err
}

func readCertificates(file string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var found []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		found = append(found, certificate)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return found, nil
}

func pemOf(chain [][]byte) []byte {
	var text []byte
	for _, der := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return text
}

func writeAgent(folder, id string, key *ecdsa.PrivateKey, chain [][]byte) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"agent.crt": pemOf(chain),
		"agent.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		"agent.id":  []byte(id),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func tellCertificate(leaf *x509.Certificate, chain [][]byte) map[string]any {
	return map[string]any{
		"id":        leaf.URIs[0].String(),
		"serial":    leaf.SerialNumber.Text(16),
		"notBefore": leaf.NotBefore.UTC().Format(time.RFC3339),
		"notAfter":  leaf.NotAfter.UTC().Format(time.RFC3339),
		"chain":     len(chain),
	}
}
