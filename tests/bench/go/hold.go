// Holding streams of FetchX509SVID, and telling when messages came on them. What it is asked and what it tells are lines of
// JSON; times are seconds since the epoch.
package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

func now() float64 { return float64(time.Now().UnixNano()) / 1e9 }

// news is the newest message of a stream: when it came, how many SVIDs are in it, and when the first of them ends.
type news struct {
	at    float64
	svids int
	ends  float64
}

type holder struct {
	mutex  sync.Mutex
	out    *json.Encoder
	all    int
	newest map[int]news    // by stream
	heard  map[int]float64 // since `arm`, by stream: when the message came that it waits for
	left   []float64       // since `arm`: what the SVID before had left of its life when that message came
	wanted int             // SVIDs in the message that counts; 0: any message
	armed  bool
	tells  bool           // of each message, at once
	ended  map[string]int // streams, by the status with which they ended
}

func (h *holder) say(event string, fields map[string]any) {
	if fields == nil {
		fields = map[string]any{}
	}
	fields["event"] = event
	h.out.Encode(fields)
}

func (h *holder) take(stream int, answer *workload.X509SVIDResponse) {
	at, svids, ends := now(), len(answer.Svids), 0.0
	if svids > 0 {
		if chain, err := x509.ParseCertificates(answer.Svids[0].X509Svid); err == nil {
			ends = float64(chain[0].NotAfter.Unix())
		}
	}
	h.mutex.Lock()
	defer h.mutex.Unlock()
	before := h.newest[stream]
	h.newest[stream] = news{at, svids, ends}
	if h.tells {
		h.say("update", map[string]any{"at": at, "svids": svids})
	}
	if !h.armed || (h.wanted != 0 && svids != h.wanted) {
		return
	}
	if _, already := h.heard[stream]; !already {
		h.heard[stream] = at
		h.left = append(h.left, before.ends-at)
	}
	h.check()
}

// check tells `all` once each stream has had what it waits for.
func (h *holder) check() {
	if !h.armed || len(h.heard) < h.all {
		return
	}
	h.armed = false
	h.say("all", map[string]any{"at": slices.Sorted(maps.Values(h.heard)), "left": slices.Sorted(slices.Values(h.left)), "ended": h.ended})
}

func (h *holder) command(line string) {
	var asked struct {
		Do    string `json:"do"`
		SVIDs int    `json:"svids"`
	}
	err := json.Unmarshal([]byte(line), &asked)
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.wanted = asked.SVIDs
	switch {
	case err == nil && asked.Do == "tell": // of each message
		h.tells = true
	case err == nil && asked.Do == "arm": // tell when each stream has had another message, with so many SVIDs if that is said
		h.heard, h.left, h.armed = map[int]float64{}, nil, true
	case err == nil && asked.Do == "await": // the same, and messages that have come count
		h.heard, h.left, h.armed = map[int]float64{}, nil, true
		for stream, each := range h.newest {
			if h.wanted == 0 || each.svids == h.wanted {
				h.heard[stream] = each.at
			}
		}
		h.check()
	default:
		h.say("error", map[string]any{"message": "not understood: " + line})
	}
}

// follow holds one stream for good, and opens it anew when it ends.
func (h *holder) follow(api workload.SpiffeWorkloadAPIClient, number int) {
	ctx := asWorkload(context.Background())
	for {
		stream, err := api.FetchX509SVID(ctx, &workload.X509SVIDRequest{})
		for err == nil {
			var answer *workload.X509SVIDResponse
			if answer, err = stream.Recv(); err == nil {
				h.take(number, answer)
			}
		}
		h.mutex.Lock()
		h.ended[status.Code(err).String()]++
		h.mutex.Unlock()
		time.Sleep(time.Second)
	}
}

// dial makes a connection to a socket, or takes one that is open already as a descriptor of this process.
func dial(socket, descriptor string) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if descriptor == "" {
		return grpc.NewClient("unix:"+socket, options...)
	}
	number, err := strconv.Atoi(descriptor)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(number), "connection")
	connection, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	file.Close()
	given := make(chan net.Conn, 1)
	given <- connection
	once := func(ctx context.Context, _ string) (net.Conn, error) {
		select {
		case made := <-given:
			return made, nil
		default:
			return nil, fmt.Errorf("the connection of descriptor %d has ended", number)
		}
	}
	return grpc.NewClient("passthrough:///given", append(options, grpc.WithContextDialer(once))...)
}

// hold is told and tells until its standard input ends.
func hold(arguments []string) error {
	flags := flag.NewFlagSet("hold", flag.ExitOnError)
	socket := flags.String("socket", "", "path of the Workload API's socket")
	streams := flags.Int("streams", 1, "streams to hold")
	each := flags.Int("per-connection", 1, "of them on one connection")
	given := flags.String("descriptors", "", "connections that were made for us, by commas: a stream on each")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	var descriptors []string
	if *given != "" {
		descriptors = strings.Split(*given, ",")
		*streams, *each = len(descriptors), 1
	}
	holder := &holder{out: json.NewEncoder(os.Stdout), all: *streams, newest: map[int]news{}, ended: map[string]int{}}
	holder.say("up", map[string]any{"pid": os.Getpid()})
	var conn *grpc.ClientConn
	for number := range *streams {
		if number%*each == 0 {
			descriptor := ""
			if len(descriptors) > 0 {
				descriptor = descriptors[number]
			}
			var err error
			if conn, err = dial(*socket, descriptor); err != nil {
				return err
			}
		}
		go holder.follow(workload.NewSpiffeWorkloadAPIClient(conn), number)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		holder.command(lines.Text())
	}
	return lines.Err()
}
