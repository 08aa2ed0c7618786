package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"time"
)

var base64url = base64.RawURLEncoding

// A prover has a key that never leaves this program: a token that is bound to it is of no use to anybody else.
type prover struct {
	key *ecdsa.PrivateKey
	jwk map[string]string
}

func newProver() (*prover, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	public, err := key.PublicKey.ECDH()
	if err != nil {
		return nil, err
	}
	point := public.Bytes() // 4, then x, then y
	x, y := base64url.EncodeToString(point[1:33]), base64url.EncodeToString(point[33:])
	return &prover{key, map[string]string{"kty": "EC", "crv": "P-256", "x": x, "y": y}}, nil
}

// prove makes the header DPoP of one request (RFC 9449, 4.2), with the digest of the token that goes with it, if one does.
func (p *prover) prove(method, to, token, nonce string) (string, error) {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return "", err
	}
	claims := map[string]any{
		"jti": base64url.EncodeToString(id), "htm": method, "htu": to, "iat": time.Now().Unix(),
	}
	if token != "" {
		claims["ath"] = sha256Of([]byte(token))
	}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	head, err := part(map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": p.jwk})
	if err != nil {
		return "", err
	}
	body, err := part(claims)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(head + "." + body))
	r, s, err := ecdsa.Sign(rand.Reader, p.key, sum[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64) // both numbers at their full length (RFC 7518, 3.4)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return head + "." + body + "." + base64url.EncodeToString(signature), nil
}

func part(value any) (string, error) {
	text, err := json.Marshal(value)
	return base64url.EncodeToString(text), err
}

func sha256Of(data []byte) string {
	sum := sha256.Sum256(data)
	return base64url.EncodeToString(sum[:])
}
