// Puts one kind of Workload API call on a socket, from so many clients at once, each with a connection of its own and one
// call after another, or several beside each other. Prints one line of JSON: how many calls, their latencies, those that failed by code, and what the
// client itself spent. Times are of the monotonic clock.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/status"
)

// What one client found.
type found struct {
	milliseconds []float64
	failed       map[string]int
}

// put makes one client after another call until the time is up, and returns what each found.
func put(clients []*client, one call, seconds float64) []found {
	all := make([]found, len(clients))
	ends := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	var wait sync.WaitGroup
	for n, each := range clients {
		wait.Add(1)
		go func() {
			defer wait.Done()
			all[n] = found{failed: map[string]int{}}
			for {
				sent := time.Now()
				if sent.After(ends) {
					return
				}
				if err := one(context.Background(), each); err != nil {
					all[n].failed[status.Code(err).String()]++
				} else {
					all[n].milliseconds = append(all[n].milliseconds, time.Since(sent).Seconds()*1000)
				}
			}
		}()
	}
	wait.Wait()
	return all
}

func percentile(sorted []float64, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}

func cpuSeconds() float64 {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}

func run() error {
	socket := flag.String("socket", "", "path of the Workload API's socket")
	kind := flag.String("call", "x509", "what to call: "+strings.Join(slices.Sorted(maps.Keys(calls)), ", "))
	number := flag.Int("clients", 1, "clients at once")
	streams := flag.Int("streams", 1, "calls under way on each connection")
	seconds := flag.Float64("seconds", 1, "how long")
	flag.Parse()
	if *socket == "" || *number < 1 || *streams < 1 {
		return errors.New("-socket, at least one client and one stream are needed")
	}
	prepare := calls[*kind]
	if prepare == nil {
		return fmt.Errorf("unknown call %q", *kind)
	}

	clients := make([]*client, *number)
	for n := range clients {
		var err error
		if clients[n], err = opened(context.Background(), "unix:"+*socket); err != nil {
			return err
		}
	}
	one, err := prepare(context.Background(), clients[0])
	if err != nil {
		return err
	}

	spent, began := cpuSeconds(), time.Now()
	all := put(slices.Repeat(clients, *streams), one, *seconds)
	passed := time.Since(began).Seconds()
	spent = cpuSeconds() - spent

	var milliseconds []float64
	failed := map[string]int{}
	for _, each := range all {
		milliseconds = append(milliseconds, each.milliseconds...)
		for code, times := range each.failed {
			failed[code] += times
		}
	}
	slices.Sort(milliseconds)
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"calls": len(milliseconds), "rate": float64(len(milliseconds)) / passed, "seconds": passed, "failed": failed,
		"p50": percentile(milliseconds, 50), "p99": percentile(milliseconds, 99),
		"client_cpu": spent / float64(max(1, len(milliseconds))),
	})
}

// commands are what it can do beside putting load on: these are named first.
var commands = map[string]func(arguments []string) error{"hold": hold, "restart": restart}

func main() {
	does := run
	if len(os.Args) > 1 && commands[os.Args[1]] != nil {
		does = func() error { return commands[os.Args[1]](os.Args[2:]) }
	}
	if err := does(); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}
