// The digest of one request, as docs/request-digests.md has it.

import { readFileSync } from "node:fs";
import { sha256 } from "./dpop.mjs";

const EXACT = 2 ** 53; // whole numbers up to here are the same to every JSON parser

export const ofHttp = (method, target, content) => ofJson({ method, target, content: sha256(content) });
export const ofGrpc = (method, message) => ofJson({ method, message: sha256(message) });
export const ofTool = (tool, args) => ofJson({ tool, arguments: args });
export const ofJson = (value) => sha256(canonical(value));

// A value as RFC 8785 has it, for what a digest may be of. JavaScript sorts texts by their UTF-16, and JSON.stringify
// escapes as it must be.
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const members = Object.keys(value).sort();
    return `{${members.map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join(",")}}`;
  }
  if (typeof value === "number" && !(Number.isInteger(value) && Math.abs(value) <= EXACT)) {
    throw new Error(`${value} is no whole number of at most 53 bits: send it as text`);
  }
  if (typeof value === "string" && !value.isWellFormed()) throw new Error("a text that is not Unicode");
  return JSON.stringify(value);
}

// Prints one line for each vector of a file such as request-digests.json: its digest, or that it has none.
export function printDigests(path) {
  const vectors = JSON.parse(readFileSync(path, "utf8"));
  const bytes = (text) => Buffer.from(text, "base64");
  for (const each of vectors.http) console.log(ofHttp(each.method, each.target, bytes(each.content_base64)));
  for (const each of vectors.grpc) console.log(ofGrpc(each.method, bytes(each.message_base64)));
  for (const each of vectors.mcp) console.log(ofTool(each.tool, each.arguments));
  for (const each of vectors.refused) {
    try {
      console.log(ofTool("any", JSON.parse(each.arguments_json)));
    } catch {
      console.log("refused");
    }
  }
}
