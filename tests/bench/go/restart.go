// Many clients as go-spiffe makes them, each with a connection of its own, through the restart of an agent: when each has
// an SVID that it had not before, and what they heard until then.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/status"
)

const textsKept = 20

// crowd is what its members have heard since they were last told to begin anew.
type crowd struct {
	mutex  sync.Mutex
	out    *json.Encoder
	all    int
	fresh  map[int]float64 // by member: when it had an SVID that it had not before
	armed  bool
	failed map[string]int // errors by status
	texts  map[string]int // and by what they say
}

func (c *crowd) begin() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.fresh, c.armed, c.failed, c.texts = map[int]float64{}, true, map[string]int{}, map[string]int{}
}

type member struct {
	of     *crowd
	number int
	serial string
}

func (m *member) OnX509ContextUpdate(update *workloadapi.X509Context) {
	serial := update.SVIDs[0].Certificates[0].SerialNumber.String()
	m.of.mutex.Lock()
	defer m.of.mutex.Unlock()
	if serial == m.serial {
		return
	}
	m.serial = serial
	if _, already := m.of.fresh[m.number]; !already {
		m.of.fresh[m.number] = now()
	}
	m.of.check()
}

func (m *member) OnX509ContextWatchError(err error) {
	m.of.mutex.Lock()
	defer m.of.mutex.Unlock()
	m.of.failed[status.Code(err).String()]++
	text := status.Convert(err).Message()
	if _, known := m.of.texts[text]; known || len(m.of.texts) < textsKept {
		m.of.texts[text]++
	}
}

// check tells `all` once each has what it waits for.
func (c *crowd) check() {
	if !c.armed || len(c.fresh) < c.all {
		return
	}
	c.armed = false
	c.out.Encode(map[string]any{
		"event": "all", "at": slices.Sorted(maps.Values(c.fresh)), "codes": c.failed, "texts": c.texts,
	})
}

// restart is told and tells until its standard input ends.
func restart(arguments []string) error {
	flags := flag.NewFlagSet("restart", flag.ExitOnError)
	socket := flags.String("socket", "", "path of the Workload API's socket")
	clients := flags.Int("clients", 1, "clients at once")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	crowd := &crowd{out: json.NewEncoder(os.Stdout), all: *clients}
	crowd.begin()
	crowd.out.Encode(map[string]any{"event": "up", "pid": os.Getpid()})
	for number := range *clients {
		client, err := workloadapi.New(context.Background(), workloadapi.WithAddr("unix://"+*socket))
		if err != nil {
			return err
		}
		go client.WatchX509Context(context.Background(), &member{of: crowd, number: number})
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() { // each line: from now on all are to have an SVID that they have not yet
		crowd.begin()
	}
	return lines.Err()
}
