package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// A call is made by a client that is connected.
type call func(context.Context, *client) error

// How each kind is made ready. What it needs beforehand is fetched once, by one client, and is not measured.
var calls = map[string]func(context.Context, *client) (call, error){
	"x509": func(context.Context, *client) (call, error) {
		return func(ctx context.Context, c *client) error { return c.x509(ctx) }, nil
	},
	"jwt": func(context.Context, *client) (call, error) {
		return func(ctx context.Context, c *client) error { _, err := c.jwt(ctx, "known"); return err }, nil
	},
	"jwt-new": func(context.Context, *client) (call, error) {
		var asked atomic.Int64
		prefix := fmt.Sprintf("new-%d-%d", os.Getpid(), time.Now().UnixNano())
		return func(ctx context.Context, c *client) error {
			_, err := c.jwt(ctx, fmt.Sprintf("%s-%d", prefix, asked.Add(1)))
			return err
		}, nil
	},
	"validate": func(ctx context.Context, first *client) (call, error) {
		token, err := first.jwt(ctx, "known")
		return func(ctx context.Context, c *client) error { return c.validate(ctx, "known", token) }, err
	},
	"connect": func(context.Context, *client) (call, error) {
		return func(ctx context.Context, c *client) error {
			fresh, err := opened(ctx, c.target)
			if err != nil {
				return err
			}
			return fresh.connection.Close()
		}, nil
	},
}

type client struct {
	target     string
	connection *grpc.ClientConn
	api        workload.SpiffeWorkloadAPIClient
}

// opened returns a client whose connection is up: it has had an SVID over it.
func opened(ctx context.Context, target string) (*client, error) {
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	made := &client{target, connection, workload.NewSpiffeWorkloadAPIClient(connection)}
	if err := made.x509(ctx); err != nil {
		connection.Close()
		return nil, err
	}
	return made, nil
}

// x509 opens a stream for one answer.
func (c *client) x509(ctx context.Context) error {
	ctx, cancel := context.WithCancel(asWorkload(ctx))
	defer cancel()
	stream, err := c.api.FetchX509SVID(ctx, &workload.X509SVIDRequest{})
	if err != nil {
		return err
	}
	answer, err := stream.Recv()
	if err == nil && len(answer.Svids) == 0 {
		err = errors.New("an answer without SVIDs")
	}
	return err
}

func (c *client) jwt(ctx context.Context, audience string) (string, error) {
	answer, err := c.api.FetchJWTSVID(asWorkload(ctx), &workload.JWTSVIDRequest{Audience: []string{audience}})
	if err != nil {
		return "", err
	}
	if len(answer.Svids) == 0 {
		return "", errors.New("an answer without SVIDs")
	}
	return answer.Svids[0].Svid, nil
}

func (c *client) validate(ctx context.Context, audience, token string) error {
	_, err := c.api.ValidateJWTSVID(asWorkload(ctx), &workload.ValidateJWTSVIDRequest{Audience: audience, Svid: token})
	return err
}

// asWorkload adds what the Workload Endpoint standard asks of each call.
func asWorkload(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", "true")
}
