// Puts one kind of Workload API call on a socket, from so many clients at once, each with a connection of its own and one
// call after another. Prints one line of JSON: how many calls, the latencies, what the client itself spent.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type client struct {
	target string
	conn   *grpc.ClientConn
	api    workload.SpiffeWorkloadAPIClient
}

func (c *client) open() error {
	conn, err := grpc.NewClient(c.target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	c.conn, c.api = conn, workload.NewSpiffeWorkloadAPIClient(conn)
	return nil
}

func (c *client) x509(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
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
	answer, err := c.api.FetchJWTSVID(ctx, &workload.JWTSVIDRequest{Audience: []string{audience}})
	if err != nil {
		return "", err
	}
	if len(answer.Svids) == 0 {
		return "", errors.New("an answer without SVIDs")
	}
	return answer.Svids[0].Svid, nil
}

func (c *client) validate(ctx context.Context, audience, token string) error {
	_, err := c.api.ValidateJWTSVID(ctx, &workload.ValidateJWTSVIDRequest{Audience: audience, Svid: token})
	return err
}

func percentile(sorted []float64, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}

func cpu() float64 {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}

func run() error {
	socket := flag.String("socket", "", "path of the Workload API's socket")
	call := flag.String("call", "x509", "x509, jwt (one audience), jwt-new (a new audience each), validate, connect (x509 on a new connection each)")
	clients := flag.Int("clients", 1, "clients at once")
	seconds := flag.Float64("seconds", 1, "how long")
	flag.Parse()

	base := metadata.NewOutgoingContext(context.Background(), metadata.Pairs("workload.spiffe.io", "true"))
	all := make([]*client, *clients)
	for n := range all {
		all[n] = &client{target: "unix:" + *socket}
		if err := all[n].open(); err != nil {
			return err
		}
		if err := all[n].x509(base); err != nil { // the connection is up
			return err
		}
	}
	token, err := "", error(nil)
	if *call != "x509" {
		token, err = all[0].jwt(base, "known")
	}
	if err != nil {
		return err
	}

	var audiences atomic.Int64
	run := fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano())
	one := map[string]func(*client) error{
		"x509":     func(c *client) error { return c.x509(base) },
		"jwt":      func(c *client) error { _, err := c.jwt(base, "known"); return err },
		"jwt-new":  func(c *client) error { _, err := c.jwt(base, run+strconv.FormatInt(audiences.Add(1), 10)); return err },
		"validate": func(c *client) error { return c.validate(base, "known", token) },
		"connect": func(c *client) error {
			fresh := &client{target: c.target}
			if err := fresh.open(); err != nil {
				return err
			}
			defer fresh.conn.Close()
			return fresh.x509(base)
		},
	}[*call]
	if one == nil {
		return fmt.Errorf("unknown call %q", *call)
	}

	took := make([][]float64, *clients)
	failed := make([]map[string]int, *clients)
	var wait sync.WaitGroup
	spent, began := cpu(), time.Now()
	ends := began.Add(time.Duration(*seconds * float64(time.Second)))
	for n, each := range all {
		failed[n] = map[string]int{}
		wait.Add(1)
		go func() {
			defer wait.Done()
			for {
				sent := time.Now()
				if sent.After(ends) {
					return
				}
				if err := one(each); err != nil {
					failed[n][status.Code(err).String()]++
				} else {
					took[n] = append(took[n], time.Since(sent).Seconds()*1000)
				}
			}
		}()
	}
	wait.Wait()
	passed := time.Since(began).Seconds()
	spent = cpu() - spent

	var every []float64
	codes := map[string]int{}
	for n := range all {
		every = append(every, took[n]...)
		for code, number := range failed[n] {
			codes[code] += number
		}
	}
	sort.Float64s(every)
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"calls": len(every), "seconds": passed, "rate": float64(len(every)) / passed, "failed": codes,
		"p50": percentile(every, 50), "p99": percentile(every, 99), "client_cpu": spent / float64(max(1, len(every))),
	})
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}
