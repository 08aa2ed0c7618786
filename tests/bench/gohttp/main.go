// Puts one kind of HTTP/1.1 request on a server, over so many kept connections: one after another on each. What to do
// comes as one JSON document on standard input; then, for each {"seconds": N} that comes, it does it for so long and
// prints one line of JSON: how many calls, the latencies, what it spent itself.
//
// A call may be of several steps, such as a token that is got and then exchanged: in the body of a step, {token} is the
// access_token of the step before. The requests are ready-made bytes, and an answer is not parsed beyond what it must be,
// so that what is measured is the server.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

type step struct {
	Method  string   `json:"method"`
	Target  string   `json:"target"`
	Headers []string `json:"headers"`
	Bodies  []string `json:"bodies"` // sent in turn
	Want    string   `json:"want"`   // is in each good answer

	next atomic.Uint64
}

type load struct {
	Network     string  `json:"network"` // unix or tcp
	Address     string  `json:"address"`
	Host        string  `json:"host"`
	Roots       string  `json:"roots"` // PEM file: with it, over TLS
	Pair        string  `json:"pair"`  // PEM file with a certificate chain and its key
	Connections int     `json:"connections"`
	Before      []*step `json:"before"` // done once: {token} of a first step is the access_token of the last of these
	Steps       []*step `json:"steps"`

	token []byte
}

const patience = 30 * time.Second

var (
	space = []byte("{token}")
	named = []byte(`"access_token":"`)
)

type lane struct {
	conn   net.Conn
	reader *bufio.Reader
	took   []float64 // milliseconds
	failed map[string]int
}

func (l *load) open() (*lane, error) {
	conn, err := net.DialTimeout(l.Network, l.Address, patience)
	if err != nil {
		return nil, err
	}
	if l.Roots != "" {
		name, _, _ := strings.Cut(l.Host, ":")
		config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: name}
		pem, err := os.ReadFile(l.Roots)
		if err != nil {
			return nil, err
		}
		config.RootCAs.AppendCertsFromPEM(pem)
		if l.Pair != "" {
			pair, err := tls.LoadX509KeyPair(l.Pair, l.Pair)
			if err != nil {
				return nil, err
			}
			config.Certificates = []tls.Certificate{pair}
		}
		secure := tls.Client(conn, config)
		if err := secure.Handshake(); err != nil {
			return nil, err
		}
		conn = secure
	}
	return &lane{conn: conn, reader: bufio.NewReaderSize(conn, 16384), failed: map[string]int{}}, nil
}

func (l *load) request(s *step, token []byte) []byte {
	body := []byte(nil)
	if len(s.Bodies) > 0 {
		body = []byte(s.Bodies[int((s.next.Add(1)-1)%uint64(len(s.Bodies)))])
	}
	if token != nil {
		body = bytes.Replace(body, space, token, 1)
	}
	made := make([]byte, 0, len(body)+512)
	made = append(made, s.Method...)
	made = append(made, ' ')
	made = append(made, s.Target...)
	made = append(made, " HTTP/1.1\r\nHost: "...)
	made = append(made, l.Host...)
	for _, each := range s.Headers {
		made = append(made, "\r\n"...)
		made = append(made, each...)
	}
	if s.Method == "POST" {
		made = append(made, "\r\nContent-Length: "...)
		made = strconv.AppendInt(made, int64(len(body)), 10)
	}
	made = append(made, "\r\n\r\n"...)
	return append(made, body...)
}

func (a *lane) ask(request []byte) (int, []byte, error) {
	a.conn.SetDeadline(time.Now().Add(patience))
	if _, err := a.conn.Write(request); err != nil {
		return 0, nil, err
	}
	answer, err := http.ReadResponse(a.reader, nil)
	if err != nil {
		return 0, nil, err
	}
	body, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	return answer.StatusCode, body, err
}

// Do these steps, and return the last token that was given.
func (l *load) do(a *lane, steps []*step, token []byte) ([]byte, error) {
	for _, s := range steps {
		status, body, err := a.ask(l.request(s, token))
		if err != nil {
			return nil, err
		}
		if status != http.StatusOK || !bytes.Contains(body, []byte(s.Want)) {
			return nil, &refused{fmt.Sprintf("%d %.200s", status, body)}
		}
		if _, rest, found := bytes.Cut(body, named); found {
			token, _, _ = bytes.Cut(rest, []byte{'"'})
		}
	}
	return token, nil
}

type refused struct{ told string }

func (r *refused) Error() string { return r.told }

// One call after another on each lane, until the time is over; return how long that took.
func (l *load) run(lanes []*lane, seconds float64) (float64, error) {
	var wait sync.WaitGroup
	broken := make([]error, len(lanes))
	began := time.Now()
	ends := began.Add(time.Duration(seconds * float64(time.Second)))
	for n, a := range lanes {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for {
				sent := time.Now()
				if sent.After(ends) {
					return
				}
				_, err := l.do(a, l.Steps, l.token)
				var said *refused
				if errors.As(err, &said) {
					a.failed[said.told]++
				} else if err != nil {
					broken[n] = err
					return
				} else {
					a.took = append(a.took, time.Since(sent).Seconds()*1000)
				}
			}
		}()
	}
	wait.Wait()
	return time.Since(began).Seconds(), errors.Join(broken...)
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

func (l *load) report(lanes []*lane, seconds float64) error {
	for _, a := range lanes {
		a.took, a.failed = nil, map[string]int{}
	}
	spent := cpu()
	passed, err := l.run(lanes, seconds)
	spent = cpu() - spent
	if err != nil {
		return err
	}
	var every []float64
	failed := map[string]int{}
	for _, a := range lanes {
		every = append(every, a.took...)
		for told, number := range a.failed {
			failed[told] += number
		}
	}
	sort.Float64s(every)
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"calls": len(every), "seconds": passed, "rate": float64(len(every)) / passed, "failed": failed,
		"p50": percentile(every, 50), "p99": percentile(every, 99), "client_cpu": spent / float64(max(1, len(every))),
	})
}

func all() error {
	told := json.NewDecoder(os.Stdin)
	l := &load{}
	if err := told.Decode(l); err != nil {
		return err
	}
	lanes := make([]*lane, l.Connections)
	for n := range lanes {
		var err error
		if lanes[n], err = l.open(); err != nil {
			return err
		}
	}
	var err error
	if l.token, err = l.do(lanes[0], l.Before, nil); err != nil {
		return err
	}
	for {
		var turn struct {
			Seconds float64 `json:"seconds"`
		}
		if err := told.Decode(&turn); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := l.report(lanes, turn.Seconds); err != nil {
			return err
		}
	}
}

func main() {
	if err := all(); err != nil {
		fmt.Fprintln(os.Stderr, "httpload:", err)
		os.Exit(1)
	}
}
