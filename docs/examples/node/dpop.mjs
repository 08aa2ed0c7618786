import { createHash, generateKeyPairSync, randomBytes, sign } from "node:crypto";

export const sha256 = (data) => createHash("sha256").update(data).digest("base64url");

const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

// Has a key that never leaves this program: a token that is bound to it is of no use to anybody else.
export class Prover {
  #key;
  #jwk;

  constructor() {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const { kty, crv, x, y } = publicKey.export({ format: "jwk" });
    this.#key = privateKey;
    this.#jwk = { kty, crv, x, y };
  }

  // The header DPoP of one request (RFC 9449, 4.2), with the digest of the token that goes with it, if one does.
  prove(method, url, { token, nonce } = {}) {
    const claims = {
      jti: randomBytes(16).toString("base64url"),
      htm: method,
      htu: url,
      iat: Math.floor(Date.now() / 1000),
      ...(token && { ath: sha256(token) }),
      ...(nonce && { nonce }),
    };
    const signed = `${part({ typ: "dpop+jwt", alg: "ES256", jwk: this.#jwk })}.${part(claims)}`;
    // Both numbers at their full length (RFC 7518, 3.4), not DER.
    const signature = sign("sha256", Buffer.from(signed), { key: this.#key, dsaEncoding: "ieee-p1363" });
    return `${signed}.${signature.toString("base64url")}`;
  }
}
