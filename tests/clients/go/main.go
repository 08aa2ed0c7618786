// Command client is a workload that knows nothing of Sojourn: it speaks to the
// Workload API through the stock go-spiffe library and reports what it got, one
// JSON object a line.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"os"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/status"
)

type fields map[string]any

var (
	commands = map[string]func([]string) error{
		"x509":       runX509,
		"watch":      runWatch,
		"jwt":        runJWT,
		"bundles":    runBundles,
		"server":     runServer,
		"dial":       runDial,
		"ids":        runIDs,
		"tasks":      runTasks,
		"oauth":      runOAuth,
		"federation": runFederation,
		"verify":     runVerify,
		"audit":      runAudit,
	}
	output sync.Mutex
)

func main() {
	err := run(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		emitError(err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("name a subcommand: x509, watch, jwt, bundles, server, dial, ids, tasks, oauth, federation, verify or audit")
	}
	command, ok := commands[arguments[0]]
	if !ok {
		return fmt.Errorf("unknown subcommand %q: use x509, watch, jwt, bundles, server, dial, ids, tasks, oauth, federation, verify or audit", arguments[0])
	}
	return command(arguments[1:])
}

// newFlags returns the flags of a subcommand; every one has -timeout.
func newFlags(name string) (*flag.FlagSet, *time.Duration) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	timeout := flags.Duration("timeout", 10*time.Second, "how long to wait for an answer")
	return flags, timeout
}

// parse reads the arguments. A fault becomes an error line on stdout, so the
// text that the flag package would print is wanted only when help was asked for.
func parse(flags *flag.FlagSet, arguments []string) error {
	flags.SetOutput(io.Discard)
	err := flags.Parse(arguments)
	if errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(os.Stderr)
		flags.PrintDefaults()
		return err
	}
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return err
}

// emit writes one line. Stdout is not buffered, so the line is out on return.
func emit(event string, f fields) {
	line := fields{"event": event}
	for name, value := range f {
		line[name] = value
	}
	output.Lock()
	defer output.Unlock()
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(line); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// emitError writes an error line, with the gRPC status code if there is one.
func emitError(err error) {
	line := fields{"message": err.Error()}
	if _, ok := status.FromError(err); ok {
		line["code"] = codeOf(err)
	}
	emit("error", line)
}

// codeOf names the gRPC status code in err as the gRPC specification does,
// PERMISSION_DENIED for example; without one it is UNKNOWN.
func codeOf(err error) string {
	return code.Code(status.Code(err)).String()
}

func serialOf(number *big.Int) string {
	return number.Text(16)
}
