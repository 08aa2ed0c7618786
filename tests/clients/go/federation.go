package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"os"
	"sort"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
)

// runFederation fetches the bundle of a foreign trust domain as its partners
// do, by https_web with -roots or by https_spiffe with -first and -endpoint-id,
// and validates a JWT-SVID by it if there is one.
func runFederation(arguments []string) error {
	flags, timeout := newFlags("federation")
	domain := flags.String("trust-domain", "example.org", "whose bundle")
	url := flags.String("url", "", "where it is")
	roots := flags.String("roots", "", "PEM file of who may have signed the endpoint's certificate")
	first := flags.String("first", "", "SPIFFE bundle file to verify the endpoint with")
	endpoint := flags.String("endpoint-id", "", "the endpoint's SPIFFE ID")
	token := flags.String("token", "", "a JWT-SVID to validate")
	audience := flags.String("audience", "", "whom it is for")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	trustDomain, err := spiffeid.TrustDomainFromString(*domain)
	if err != nil {
		return err
	}
	option, err := fetchOption(trustDomain, *roots, *first, *endpoint)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	bundle, err := federation.FetchBundle(ctx, trustDomain, *url, option)
	if err != nil {
		return err
	}
	certificates, keys := []string{}, []string{}
	for _, authority := range bundle.X509Authorities() {
		certificates = append(certificates, hex.EncodeToString(authority.Raw))
	}
	for id := range bundle.JWTAuthorities() {
		keys = append(keys, id)
	}
	sort.Strings(keys)
	sequence, _ := bundle.SequenceNumber()
	hint, _ := bundle.RefreshHint()
	emit("federation", fields{"x509": certificates, "jwt": keys, "sequence": sequence, "refresh_hint": hint.Seconds()})
	if *token == "" {
		return nil
	}
	svid, err := jwtsvid.ParseAndValidate(*token, bundle, []string{*audience})
	if err != nil {
		return err
	}
	emit("validated", fields{"by": "federation", "spiffe_id": svid.ID.String()})
	return nil
}

func fetchOption(domain spiffeid.TrustDomain, roots, first, endpoint string) (federation.FetchOption, error) {
	if roots != "" {
		content, err := os.ReadFile(roots)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(content) {
			return nil, errors.New("no certificate in the file of -roots")
		}
		return federation.WithWebPKIRoots(pool), nil
	}
	bundle, err := spiffebundle.Load(domain, first)
	if err != nil {
		return nil, err
	}
	id, err := spiffeid.FromString(endpoint)
	if err != nil {
		return nil, err
	}
	return federation.WithSPIFFEAuth(bundle, id), nil
}
