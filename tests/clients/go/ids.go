package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// runIDs says of each text on stdin, one a line as hexadecimal, what the library
// makes of it as a SPIFFE ID and as the name of a trust domain. Its answer is one
// line of plain text, for there may be a million: two columns, each "-" for a
// refusal or else the parts that were found, as hexadecimal with a colon between.
func runIDs(arguments []string) error {
	flags, _ := newFlags("ids")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return out.Flush()
		}
		if err != nil {
			return err
		}
		text, err := hex.DecodeString(string(line[:len(line)-1]))
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, asID(string(text)), asTrustDomain(string(text))); err != nil {
			return err
		}
	}
}

func asID(text string) string {
	id, err := spiffeid.FromString(text)
	if err != nil {
		return "-"
	}
	return fmt.Sprintf("%x:%x", id.TrustDomain().Name(), id.Path())
}

func asTrustDomain(text string) string {
	name, err := spiffeid.TrustDomainFromString(text)
	if err != nil {
		return "-"
	}
	return fmt.Sprintf("%x:", name.Name())
}
