// A note on a ticket, by a token that is for this one request and bound to a key of this program.
//
//     export SOJOURN_SOCKET="$(sojourn config show socket)"
//     node docs/examples/node/note.mjs 42 "asked the fire brigade"
//
// It needs Node 20 or newer and no package; guarded_service.py is who it talks to. The agent is asked at its Unix
// socket, where the kernel says who asks: there is no secret to configure.

import http from "node:http";
import { ofHttp, printDigests } from "./digest.mjs";
import { Prover } from "./dpop.mjs";

const SERVICE = process.env.TICKETS ?? "http://localhost:8091";
const SOCKET = (process.env.SOJOURN_SOCKET ?? process.env.SPIFFE_ENDPOINT_SOCKET ?? "").replace(/^unix:(\/\/)?/, "");
// The agent knows its token endpoint by this URL where it is asked through the socket.
const TOKEN_URL = "http://localhost/token";

// Begins a task for one ticket, and gets the token for the one request that the digest names. The task is its
// token: it ends when that has expired, or when it is revoked.
async function fetchToken(prover, ticket, digest) {
  const form = new URLSearchParams({
    grant_type: "client_credentials",
    authorization_details: JSON.stringify([
      {
        type: "note-once",
        actions: ["ticket:note"],
        locations: [SERVICE],
        params: { ticket },
        params_digest: digest,
      },
    ]),
  }).toString();
  const headers = { "content-type": "application/x-www-form-urlencoded" };
  const { status, text } = await post(prover, TOKEN_URL, headers, form, { socketPath: SOCKET });
  const got = JSON.parse(text);
  if (status !== 200 || got.token_type !== "DPoP") throw new Error(`no token: ${got.error_description}`);
  return got.access_token;
}

// Sends a request with a proof, and once more if a nonce is asked for.
async function post(prover, url, headers, content, { socketPath, token } = {}) {
  let nonce;
  for (;;) {
    const proved = { ...headers, dpop: prover.prove("POST", url, { token, nonce }) };
    const answer = await send(url, proved, content, socketPath);
    const wanted = answer.headers["dpop-nonce"];
    if (![400, 401].includes(answer.status) || !wanted || nonce) return answer;
    nonce = wanted;
  }
}

function send(url, headers, content, socketPath) {
  return new Promise((resolve, reject) => {
    const options = { method: "POST", headers, timeout: 30_000, ...(socketPath && { socketPath }) };
    const request = http.request(url, options, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (part) => (text += part));
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, text }));
      response.on("error", reject);
    });
    request.on("timeout", () => request.destroy(new Error(`${url} does not answer`)));
    request.on("error", reject);
    request.end(content);
  });
}

async function note(ticket, text) {
  const target = `/tickets/${encodeURIComponent(ticket)}/notes`;
  const content = Buffer.from(text, "utf8");
  const prover = new Prover();
  const token = await fetchToken(prover, ticket, ofHttp("POST", target, content));
  const headers = { authorization: `DPoP ${token}`, "content-type": "text/plain; charset=utf-8" };
  const answer = await post(prover, SERVICE + target, headers, content, { token });
  console.log(answer.status, answer.text);
}

const [first, second] = process.argv.slice(2);
try {
  if (second === undefined) throw new Error("usage: note.mjs TICKET TEXT, or note.mjs --digests FILE");
  await (first === "--digests" ? printDigests(second) : note(first, second));
} catch (error) {
  console.error("error:", error.message);
  process.exitCode = 1;
}
