package main

import (
	"context"
	"encoding/hex"
	"sort"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func runBundles(arguments []string) error {
	flags, timeout := newFlags("bundles")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	client, err := workloadapi.New(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	x509, err := client.FetchX509Bundles(ctx)
	if err != nil {
		return err
	}
	jwt, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return err
	}
	certificates, keys := map[string][]string{}, map[string][]string{}
	for _, bundle := range x509.Bundles() {
		name := bundle.TrustDomain().Name()
		certificates[name] = []string{}
		for _, authority := range bundle.X509Authorities() {
			certificates[name] = append(certificates[name], hex.EncodeToString(authority.Raw))
		}
	}
	for _, bundle := range jwt.Bundles() {
		name := bundle.TrustDomain().Name()
		keys[name] = []string{}
		for id := range bundle.JWTAuthorities() {
			keys[name] = append(keys[name], id)
		}
		sort.Strings(keys[name])
	}
	emit("bundles", fields{"x509": certificates, "jwt": keys})
	return nil
}
