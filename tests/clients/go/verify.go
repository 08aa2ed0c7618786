package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// runVerify is a service that verifies JWT-SVIDs for as long as it is asked to:
// each JSON object on its input has tokens by their audiences, and is answered
// with the audiences of those that are good by the bundle that go-spiffe
// follows, and of those that the agent finds good.
func runVerify(arguments []string) error {
	flags, timeout := newFlags("verify")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	start, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	client, err := workloadapi.New(start)
	if err != nil {
		return err
	}
	defer client.Close()
	source, err := workloadapi.NewJWTSource(start, workloadapi.WithClient(client))
	if err != nil {
		return err
	}
	defer source.Close()
	emit("ready", nil)

	asked := json.NewDecoder(os.Stdin)
	for {
		var tokens map[string]string
		if err := asked.Decode(&tokens); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		byBundle, byAgent := []string{}, []string{}
		for audience, token := range tokens {
			if _, err := jwtsvid.ParseAndValidate(token, source, []string{audience}); err == nil {
				byBundle = append(byBundle, audience)
			}
			ctx, cancel := context.WithTimeout(context.Background(), *timeout)
			if _, err := client.ValidateJWTSVID(ctx, token, audience); err == nil {
				byAgent = append(byAgent, audience)
			}
			cancel()
		}
		emit("verified", fields{"bundle": byBundle, "agent": byAgent})
	}
}
