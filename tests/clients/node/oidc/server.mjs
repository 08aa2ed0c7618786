// An OpenID provider whose login form takes any name and password: `node server.mjs PORT REDIRECT LOGOUT_URI`.
//
// Prints `ready` once it listens. Its access tokens are opaque, as they come; one for the resource RESOURCE has the groups
// when it is introspected. People are in the groups of GROUPS, a JSON object by name in the environment; the ID token has
// them. ASKER is the client that introspects, {"client_id", "jwks"}.
import Provider from "oidc-provider";

const [port, redirect, logout] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const groups = JSON.parse(process.env.GROUPS ?? "{}");
const asker = JSON.parse(process.env.ASKER ?? "null");
const resource = process.env.RESOURCE ?? "https://chat.example.org";

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "shop-app",
      token_endpoint_auth_method: "none",
      redirect_uris: [redirect],
      post_logout_redirect_uris: [redirect],
      id_token_signed_response_alg: "RS256",
      backchannel_logout_uri: logout,
      backchannel_logout_session_required: true,
    },
    ...(asker === null
      ? []
      : [{ ...asker, token_endpoint_auth_method: "private_key_jwt", redirect_uris: [], response_types: [], grant_types: [] }]),
  ],
  extraTokenClaims: (_, token) => (token.accountId ? { groups: groups[token.accountId] ?? [] } : undefined),
  claims: { openid: ["sub"], groups: ["groups"] },
  conformIdTokenClaims: false,
  cookies: { keys: ["for the tests alone"] },
  // It asks nobody at a special-use address unless this says so: here all that it tells of logouts is on loopback.
  fetch: (url, { dispatcher: _, ...options }) => fetch(url, options),
  features: {
    backchannelLogout: { enabled: true },
    devInteractions: { enabled: true },
    introspection: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope: "orders.read orders.write", audience: resource, accessTokenFormat: "opaque" }),
    },
  },
  findAccount: (_, name) => ({
    accountId: name,
    claims: () => ({ sub: name, groups: groups[name] ?? [] }),
  }),
  ttl: { AccessToken: 300, IdToken: 300, Session: 3600, Grant: 3600, Interaction: 600 },
});

provider.on("server_error", (_, error) => console.error(error));
provider.on("backchannel.error", (_, error, client) => console.error(`${client.clientId} was not told: ${error} ${error.cause ?? ""}`));
provider.on("backchannel.success", (_, client) => console.error(`${client.clientId} was told`));
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
