// A note on a ticket, by a token that is for this one request and bound to a key of this program.
//
//	export SOJOURN_SOCKET="$(sojourn config show socket)"
//	cd docs/examples/go && go run . 42 "asked the fire brigade"
//
// It needs Go 1.24 or newer and nothing beyond the standard library; guarded_service.py is who it talks to. The agent
// is asked at its Unix socket, where the kernel says who asks: there is no secret to configure.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// The agent knows its token endpoint by this URL where it is asked through the socket.
const tokenURL = "http://localhost/token"

func main() {
	if len(os.Args) != 3 {
		fail(errors.New("usage: note TICKET TEXT, or note --digests FILE"))
	}
	var err error
	if os.Args[1] == "--digests" {
		err = printDigests(os.Args[2])
	} else {
		err = note(os.Args[1], []byte(os.Args[2]))
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(1)
}

func note(ticket string, text []byte) error {
	service := os.Getenv("TICKETS")
	if service == "" {
		service = "http://localhost:8091"
	}
	target := "/tickets/" + url.PathEscape(ticket) + "/notes"
	digest, err := ofHTTP(http.MethodPost, target, text)
	if err != nil {
		return err
	}
	prover, err := newProver()
	if err != nil {
		return err
	}
	token, err := fetchToken(prover, service, ticket, digest)
	if err != nil {
		return err
	}
	header := http.Header{"Authorization": {"DPoP " + token}, "Content-Type": {"text/plain; charset=utf-8"}}
	client := &http.Client{Timeout: 30 * time.Second}
	status, answer, err := prover.post(client, service+target, header, text, token)
	if err != nil {
		return err
	}
	fmt.Println(status, string(answer))
	return nil
}

// fetchToken begins a task for one ticket, and gets the token for the one request that the digest names. The task lives
// with this process and ends with its token.
func fetchToken(prover *prover, service, ticket, digest string) (string, error) {
	details, err := json.Marshal([]any{map[string]any{
		"type":          "note-once",
		"actions":       []string{"ticket:note"},
		"locations":     []string{service},
		"params":        map[string]string{"ticket": ticket},
		"params_digest": digest,
	}})
	if err != nil {
		return "", err
	}
	form := url.Values{"grant_type": {"client_credentials"}, "authorization_details": {string(details)}}
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	status, answer, err := prover.post(atSocket(), tokenURL, header, []byte(form.Encode()), "")
	if err != nil {
		return "", err
	}
	var got struct {
		Token       string `json:"access_token"`
		Type        string `json:"token_type"`
		Description string `json:"error_description"`
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		return "", fmt.Errorf("the agent answered with status %d and no JSON", status)
	}
	if status != http.StatusOK || got.Type != "DPoP" {
		return "", fmt.Errorf("no token: %s", got.Description)
	}
	return got.Token, nil
}

// atSocket is a client that reaches nothing but the agent's Unix socket.
func atSocket() *http.Client {
	path := os.Getenv("SOJOURN_SOCKET")
	if path == "" {
		path = os.Getenv("SPIFFE_ENDPOINT_SOCKET")
	}
	path = strings.TrimPrefix(strings.TrimPrefix(path, "unix://"), "unix:")
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: dial}}
}

// post sends a request with a proof, and once more if a nonce is asked for.
func (p *prover) post(client *http.Client, to string, header http.Header, content []byte, token string) (int, []byte, error) {
	nonce := ""
	for {
		proof, err := p.prove(http.MethodPost, to, token, nonce)
		if err != nil {
			return 0, nil, err
		}
		request, err := http.NewRequest(http.MethodPost, to, bytes.NewReader(content))
		if err != nil {
			return 0, nil, err
		}
		request.Header = header.Clone()
		request.Header.Set("DPoP", proof)
		response, err := client.Do(request)
		if err != nil {
			return 0, nil, err
		}
		answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
		response.Body.Close()
		if err != nil {
			return 0, nil, err
		}
		wanted := response.Header.Get("DPoP-Nonce")
		refused := response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusBadRequest
		if !refused || wanted == "" || nonce != "" {
			return response.StatusCode, answer, nil
		}
		nonce = wanted
	}
}
