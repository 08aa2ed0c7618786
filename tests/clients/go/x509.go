package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/logger"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// lastError is a logger of the library that keeps the last error it was given.
// The sources retry in silence, and without this a refusal looks like a timeout.
type lastError struct {
	logger.Logger
	mutex sync.Mutex
	err   error
}

func newLastError() *lastError {
	return &lastError{Logger: logger.Null}
}

func (l *lastError) Errorf(_ string, arguments ...any) {
	for _, argument := range arguments {
		if err, ok := argument.(error); ok {
			l.mutex.Lock()
			l.err = err
			l.mutex.Unlock()
		}
	}
}

// explain puts the last error behind a timeout.
func (l *lastError) explain(err error, timeout time.Duration) error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if l.err == nil {
		return fmt.Errorf("no update from the Workload API within %s", timeout)
	}
	return fmt.Errorf("no update from the Workload API within %s: %w", timeout, l.err)
}

func newX509Source(timeout time.Duration) (*workloadapi.X509Source, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	last := newLastError()
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithLogger(last)))
	if err != nil {
		return nil, last.explain(err, timeout)
	}
	return source, nil
}

func runX509(arguments []string) error {
	flags, timeout := newFlags("x509")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	source, err := newX509Source(*timeout)
	if err != nil {
		return err
	}
	defer source.Close()
	svid, err := source.GetX509SVID()
	if err != nil {
		return err
	}
	emit("svid", fields{
		"spiffe_id": svid.ID.String(),
		"serial":    serialOf(svid.Certificates[0].SerialNumber),
		"not_after": svid.Certificates[0].NotAfter.Unix(),
		"chain_len": len(svid.Certificates),
		"hint":      svid.Hint,
	})
	return nil
}

// watcher passes what the library's watch sees to the command, which alone
// decides what is printed and when to stop.
type watcher struct {
	ctx     context.Context
	updates chan *workloadapi.X509Context
	errors  chan error
}

func (w *watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	select {
	case w.updates <- update:
	case <-w.ctx.Done():
	}
}

func (w *watcher) OnX509ContextWatchError(err error) {
	select {
	case w.errors <- err:
	case <-w.ctx.Done():
	}
}

func runWatch(arguments []string) error {
	flags, timeout := newFlags("watch")
	updates := flags.Int("updates", 1, "stop after this many updates")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w := &watcher{ctx: ctx, updates: make(chan *workloadapi.X509Context), errors: make(chan error)}
	ended := make(chan error, 1)
	go func() { ended <- workloadapi.WatchX509Context(ctx, w) }()

	silence := time.NewTimer(*timeout)
	defer silence.Stop()
	for n := 1; n <= *updates; {
		select {
		case update := <-w.updates:
			emitUpdate(n, update)
			n++
			silence.Reset(*timeout)
		case err := <-w.errors:
			emit("error", fields{"code": codeOf(err), "message": err.Error()})
		case err := <-ended:
			return fmt.Errorf("the watch ended: %w", err)
		case <-silence.C:
			return fmt.Errorf("no update from the Workload API within %s", *timeout)
		}
	}
	return nil
}

func emitUpdate(n int, update *workloadapi.X509Context) {
	ids, serials, hints := []string{}, []string{}, []string{}
	for _, svid := range update.SVIDs {
		ids = append(ids, svid.ID.String())
		serials = append(serials, serialOf(svid.Certificates[0].SerialNumber))
		hints = append(hints, svid.Hint)
	}
	emit("update", fields{
		"n":          n,
		"spiffe_ids": ids,
		"serials":    serials,
		"hints":      hints,
		"bundles":    update.Bundles.Len(),
	})
}
