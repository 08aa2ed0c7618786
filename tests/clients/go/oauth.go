package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/oauth2/google/externalaccount"
)

// parameters collects repeated -form name=value flags.
type parameters url.Values

func (p parameters) String() string { return url.Values(p).Encode() }

func (p parameters) Set(text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return fmt.Errorf("%q is not name=value", text)
	}
	url.Values(p).Add(name, value)
	return nil
}

// fixed is a subject token that somebody else has fetched.
type fixed string

func (f fixed) SubjectToken(context.Context, externalaccount.SupplierOptions) (string, error) {
	return string(f), nil
}

// runOAuth gets an access token with golang.org/x/oauth2, by its documented options alone.
func runOAuth(arguments []string) error {
	flags, timeout := newFlags("oauth")
	how := flags.String("with", "", "clientcredentials or externalaccount (required)")
	tokenURL := flags.String("token-url", "", "the token endpoint (required)")
	socket := flags.String("socket", "", "a Unix socket to reach it by")
	roots := flags.String("roots", "", "PEM file of the roots of an HTTPS endpoint")
	pair := flags.String("pair", "", "PEM file of a certificate and its key, for mutual TLS")
	clientID := flags.String("client-id", "", "the client")
	audience := flags.String("audience", "", "externalaccount: the audience of the token")
	subject := flags.String("subject-token", "", "externalaccount: the subject token, a JWT")
	form := parameters{}
	flags.Var(form, "form", "clientcredentials: a parameter, name=value; may be repeated")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	if *tokenURL == "" {
		return errors.New("-token-url is required")
	}
	client, err := httpClient(*socket, *roots, *pair)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	ctx = context.WithValue(ctx, oauth2.HTTPClient, client)

	var source oauth2.TokenSource
	switch *how {
	case "clientcredentials":
		config := clientcredentials.Config{
			ClientID:       *clientID,
			TokenURL:       *tokenURL,
			EndpointParams: url.Values(form),
			AuthStyle:      oauth2.AuthStyleInParams,
		}
		source = config.TokenSource(ctx)
	case "externalaccount":
		source, err = externalaccount.NewTokenSource(ctx, externalaccount.Config{
			Audience:             *audience,
			SubjectTokenType:     "urn:ietf:params:oauth:token-type:jwt",
			TokenURL:             *tokenURL,
			SubjectTokenSupplier: fixed(*subject),
			Scopes:               strings.Fields(form.scope()),
		})
		if err != nil {
			return err
		}
	default:
		return fmt.Errorf("-with %q: use clientcredentials or externalaccount", *how)
	}
	token, err := source.Token()
	if err != nil {
		return err
	}
	emit("access_token", fields{
		"access_token": token.AccessToken,
		"token_type":   token.Type(),
		"expiry":       token.Expiry.Unix(),
		"scope":        token.Extra("scope"),
		"task_id":      token.Extra("task_id"),
	})
	return nil
}

func (p parameters) scope() string { return url.Values(p).Get("scope") }

func httpClient(socket, roots, pair string) (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	if socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
	}
	if roots != "" {
		text, err := os.ReadFile(roots)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, errors.New("-roots has no certificate")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	if pair != "" {
		certificate, err := tls.LoadX509KeyPair(pair, pair)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig.Certificates = []tls.Certificate{certificate}
	}
	return &http.Client{Transport: transport}, nil
}
