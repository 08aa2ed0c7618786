package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func runJWT(arguments []string) error {
	flags, timeout := newFlags("jwt")
	audience := flags.String("audience", "", "the audience to ask for (required)")
	subject := flags.String("spiffe-id", "", "the SPIFFE ID to ask for; else the agent's first")
	if err := parse(flags, arguments); err != nil {
		return err
	}
	if *audience == "" {
		return errors.New("-audience is required")
	}
	parameters := jwtsvid.Params{Audience: *audience}
	if *subject != "" {
		id, err := spiffeid.FromString(*subject)
		if err != nil {
			return err
		}
		parameters.Subject = id
	}

	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	last := newLastError()
	client, err := workloadapi.New(ctx, workloadapi.WithLogger(last))
	if err != nil {
		return err
	}
	defer client.Close()
	source, err := workloadapi.NewJWTSource(ctx, workloadapi.WithClient(client))
	if err != nil {
		return last.explain(err, *timeout)
	}
	defer source.Close()

	svid, err := source.FetchJWTSVID(ctx, parameters)
	if err != nil {
		return err
	}
	token := svid.Marshal()
	emit("jwt", fields{
		"token":     token,
		"spiffe_id": svid.ID.String(),
		"expiry":    svid.Expiry.Unix(),
		"hint":      svid.Hint,
	})

	byAgent, err := client.ValidateJWTSVID(ctx, token, *audience)
	if err != nil {
		return fmt.Errorf("validation by the agent: %w", err)
	}
	emit("validated", fields{"by": "agent", "spiffe_id": byAgent.ID.String()})

	byBundle, err := jwtsvid.ParseAndValidate(token, source, []string{*audience})
	if err != nil {
		return fmt.Errorf("validation by the bundle: %w", err)
	}
	emit("validated", fields{"by": "bundle", "spiffe_id": byBundle.ID.String()})
	return nil
}
