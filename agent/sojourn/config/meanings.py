"""What each key of the configuration means, for people: `sojourn config explain` and the reference say it."""

from typing import Final

# Keys whose change is in force when the file is read again (SIGHUP). Any other waits for a start of the agent.
AT_ONCE: Final = frozenset(
    {
        "log.level",
        "services",
        "audit.keep",
        "audit.max_bytes",
        "audit.usage_keep",
        "tasks.types_dir",
        "tasks.require_cases",
        "tasks.shadow_types_dir",
        "limits.connections_per_uid",
        "limits.connections_per_uid_per_second",
    }
)
# Defaults that depend on the machine, or on other keys.
DEFAULTS: Final = {
    "node_name": "the host's name",
    "data_dir": "$STATE_DIRECTORY, /var/lib/sojourn for root, else $XDG_STATE_HOME/sojourn",
    "mark_dir": "/var/lib/sojourn-mark, if it is there and data_dir is /var/lib/sojourn",
    "socket": "agent.sock in /run/sojourn for root, else in $XDG_RUNTIME_DIR/sojourn",
    "admin_socket": "admin.sock beside it",
    "authority.jwt_key_overlap": "1h, or a third of a shorter jwt_key_ttl",
    "keys.seal_key": "none",
    "keys.module": "none",
    "keys.token": "none",
    "keys.pin_file": "none",
    "keys.socket": "none",
    "keys.openbao.audience": "keys.openbao.address",
    "attestors": "[attestors.unix] alone",
    "tasks.types_dir": (
        "task-types in $CONFIGURATION_DIRECTORY, in /etc/sojourn for root, else in $XDG_CONFIG_HOME/sojourn; if there"
    ),
    "tasks.issuer": "https://sojourn.TRUST_DOMAIN",
    "listen.allowed": "all of the trust domain",
    "listen.https_certificate": "the agent's X.509-SVID",
    "listen.https_allowed": "all of the trust domain",
    "listen.trust_certificate": "the agent's X.509-SVID",
    "listen.trust_url": "tasks.issuer",
    "listen.people_certificate": "the agent's X.509-SVID",
    "federation.ca": "the system's authorities",
    "limits.connections_per_uid": "half of all",
    "approval_notifier.ca": "the system's authorities",
    "upstream.kind": "the agent is its own authority",
    "listen.nodes": "0.0.0.0:8081 of a server",
    "node_attestors.x509pop.ca": "nodes do not join by certificates",
    "node_attestors.k8s_psat.clusters": "nodes do not join by tokens of pods",
    "node_attestors.k8s_psat.clusters.NAME.kube_config_file": "as Kubernetes tells the pod that the server is in",
    "upstream.token_file": "`k8s_psat`: /var/run/secrets/tokens/spire-agent",
    "audit.max_bytes": "8 GiB, or half of the data folder's file system if that is less",
    "audit.keep": "it is pruned by size alone",
    "audit.sinks[].include": "all events",
    "audit.sinks[].exclude": "none",
    "audit.sinks[].ca": "the system's authorities",
    "audit.witnesses[].ca": "the system's authorities",
    "audit.timestamps.url": "no checkpoint is time-stamped",
    "audit.timestamps.ca": "the system's authorities",
    "signals[].audience": "tasks.issuer",
    "signals[].jwks": "by the transmitter's metadata",
    "signals[].max_age": "10m; 1h with poll",
    "signals[].ca": "the system's authorities",
    "signals[].token_issuer": "the issuer",
    "signals[].scope": "ssf.read; with stream also ssf.manage",
    "signals[].resource": "the issuer",
    "signals[].assertion_audience": "the authorization server's issuer",
    "people.NAME.jwks": "by OpenID Connect Discovery",
    "people.NAME.ca": "the system's authorities",
    "people.NAME.algorithms": "all three",
    "people.NAME.recheck": "it is not asked",
    "people.NAME.scopes": "not looked at",
}
MEANINGS: Final = {
    "trust_domain": "The trust domain: the host part of every SPIFFE ID that is issued here.",
    "node_name": "Last part of the node's ID, `spiffe://TRUST_DOMAIN/spire/agent/sojourn/NODE_NAME`.",
    "node_aliases": "Further parent IDs whose entries are served here.",
    "data_dir": "The folder of the database, the keys and the lock.",
    "mark_dir": (
        "A folder outside of `data_dir`, of the agent's user, in which a mark says how far the agent had come: so a"
        " data folder that is put back whole is noticed, see operate/back-up.md."
    ),
    "socket": "The public socket, for workloads. One that systemd holds is where systemd has it.",
    "admin_socket": "The admin socket, mode 0600, for root and the agent's own user.",
    "server.node_svid_ttl": (
        "Life of the SVIDs by which nodes are known, or less if what signs them ends before. That there is a table"
        " `[server]` makes it a server's configuration, see ../fleet.md."
    ),
    "node_attestors.x509pop.ca": (
        "A PEM file with the authorities whose certificates make a machine a node of this server."
    ),
    "node_attestors.k8s_psat.clusters": (
        "A table `[node_attestors.k8s_psat.clusters.NAME]` for each cluster of Kubernetes whose machines are nodes of"
        " this server. NAME is what agents call it, and a part of their IDs."
    ),
    "node_attestors.k8s_psat.clusters.NAME.service_account_allow_list": (
        "The service accounts whose pods are agents. Whoever may make pods of theirs may make nodes."
    ),
    "node_attestors.k8s_psat.clusters.NAME.audience": (
        "The audiences of which a token must have one. `[]`: that of the cluster's API, which tokens of every pod have."
    ),
    "node_attestors.k8s_psat.clusters.NAME.kube_config_file": (
        "A kubeconfig, by whose current context the cluster's API is asked, see ../fleet.md. It is read again for each"
        " token."
    ),
    "node_attestors.k8s_psat.clusters.NAME.allowed_node_label_keys": (
        "Labels of the cluster's node that are selectors, `k8s_psat:agent_node_label:KEY:VALUE`."
    ),
    "node_attestors.k8s_psat.clusters.NAME.allowed_pod_label_keys": (
        "Labels of the agent's pod that are selectors, `k8s_psat:agent_pod_label:KEY:VALUE`."
    ),
    "authority.kind": "What signs. `embedded` is this agent's own certificate authority.",
    "authority.key_type": "The type of X.509 keys that are made from now on.",
    "authority.root_ttl": "Life of the root certificate, when it is made.",
    "authority.issuer_ttl": (
        "Life of the intermediate, which is renewed at half of it. With an upstream authority at least three times"
        " `identity.x509_svid_ttl`."
    ),
    "authority.jwt_key_ttl": "Life of a JWT key.",
    "authority.jwt_key_overlap": (
        "How long a JWT key is published before it signs, at the least; at most a third of `jwt_key_ttl`."
    ),
    "keys.manager": (
        "How private keys lie on disk, and where those of roots are. `file`: as they are, readable by the agent alone."
        " `sealed`: by `seal_key`, so that whoever has the files has no key by that. `pkcs11`, `openbao`, `aws_kms`:"
        " roots' keys are made in a token, or by a service, and stay there; the others lie on disk, sealed if there is"
        " a `seal_key`."
    ),
    "keys.socket": (
        "Where a key process that is a service of its own listens, `sojourn keys run`: it alone has the keys of roots,"
        " whatever the manager, and the agent asks it. By default the agent starts a key process where `manager` has"
        " one."
    ),
    "keys.agent_user": "The user, by name or uid, whose agent `sojourn keys run` answers.",
    "keys.openbao.address": "Where OpenBao or Vault is, as `https://bao.example.org:8200`.",
    "keys.openbao.mount": "Where the transit engine is mounted.",
    "keys.openbao.namespace": "The namespace.",
    "keys.openbao.auth_mount": "Where the auth method is mounted that takes the agent's own JWT-SVID.",
    "keys.openbao.auth_role": "The role of that method. It, or `token_file`.",
    "keys.openbao.audience": "The audience of that JWT-SVID.",
    "keys.openbao.token_file": "A file with a token, read each time; instead of `auth_role`.",
    "keys.openbao.timeout": "For one request.",
    "keys.openbao.ca": "A PEM file of who may have signed its certificate. Default: the system's.",
    "keys.openbao.private_networks": "Networks that are not public, and may be connected to.",
    "keys.openbao.plain_http": "Whether http:// to a loopback address will do, for trying it out.",
    "keys.aws_kms.region": "The region that has the keys.",
    "keys.aws_kms.endpoint": "Another address of KMS than the region's own, such as one of a VPC.",
    "keys.aws_kms.timeout": "To connect, and for an answer.",
    "keys.module": "With `pkcs11`: the absolute path of the vendor's PKCS#11 library, a file of root's.",
    "keys.token": "With `pkcs11`: the token's label.",
    "keys.pin_file": "With `pkcs11`: the file with the PIN of the token's user, or `credential:NAME`.",
    "keys.environment": (
        "With `pkcs11` and `aws_kms`: variables of the key process, as its library wants them, such as `SOFTHSM2_CONF`"
        " or `AWS_SHARED_CREDENTIALS_FILE`. It has no others of the agent's."
    ),
    "keys.network": (
        "With `pkcs11`: whether the process that uses the token may open sockets but Unix ones, as libraries of tokens"
        " elsewhere do."
    ),
    "keys.seal_key": (
        'The file with the key that keys are sealed with: 32 random bytes, and nothing else. With `manager = "file"`:'
        " what they were sealed with until now; they lie in clear after the next start."
    ),
    "authority.rs256": (
        "Whether there are RSA keys (RS256) beside, for outside parties that take nothing else. A provider of"
        " kind `entra` implies it."
    ),
    "authority.upstream.kind": (
        "Who signs the intermediate instead of a root of this agent's own, see operate/upstream-authority.md."
    ),
    "authority.upstream.lead": (
        "How long a root is in the bundle before anything under it signs; at most a quarter of `issuer_ttl`."
    ),
    "authority.upstream.look_every": (
        "How often it is looked whether the authority answers, and its certificate or roots have changed."
    ),
    "authority.upstream.certificate": (
        "`disk`: a PEM file with the certificate that signs, then those above it, without the root. `spire`: with the"
        " node's certificate, for `x509pop`."
    ),
    "authority.upstream.key": "`disk`, `spire`: a PEM file with its private key, which no other user can read.",
    "authority.upstream.roots": "`disk`: a PEM file with the roots, which come into the bundle.",
    "authority.upstream.address": "`openbao`: where it is, as `https://bao.example.org:8200`.",
    "authority.upstream.mount": "`openbao`: where the PKI engine is mounted.",
    "authority.upstream.issuer": "`openbao`: which issuer of that engine signs, by its name or ID.",
    "authority.upstream.namespace": "`openbao`: the namespace.",
    "authority.upstream.auth_mount": (
        "`openbao`: where the JWT auth method is mounted that takes the agent's own JWT-SVID."
    ),
    "authority.upstream.auth_role": "`openbao`: the role of that method. It, or `token_file`.",
    "authority.upstream.audience": "`openbao`: the audience of that JWT-SVID.",
    "authority.upstream.token_file": (
        "`openbao`: a file with a token, read each time; instead of `auth_role`. `spire`: with a join token, which is"
        " good once."
    ),
    "authority.upstream.servers": "`spire`: the servers, as `HOST:PORT`. One is asked as long as it answers.",
    "authority.upstream.socket": (
        "`spire`: the socket of a spire-agent on this machine, by whose X.509-SVID the server is asked."
    ),
    "authority.upstream.spiffe_id": (
        "`spire`: which of several SPIFFE IDs the server is asked by; its entry there is marked `-downstream`."
    ),
    "authority.upstream.attestor": (
        "`spire`: how this agent proves which node it is, instead of `socket`: with `token_file`, or `certificate` and"
        " `key`."
    ),
    "authority.upstream.bundle": (
        "`spire`, with `attestor`: a file with the trust domain's bundle, by which the first connection is verified."
    ),
    "authority.upstream.timeout": "`openbao`: for one request.",
    "authority.upstream.ca": "`openbao`: a PEM file of who may have signed its certificate. Default: the system's.",
    "authority.upstream.private_networks": "`openbao`: networks that are not public, and may be connected to.",
    "authority.upstream.plain_http": (
        "`openbao`: whether `http://` to a loopback address is good too, for trying it out."
    ),
    "upstream.kind": (
        "What this agent is a node of: a server that signs its SVIDs and has its entries, see"
        " [a node of a SPIRE server](../operate/spire-node.md)."
    ),
    "upstream.servers": "The servers, as `HOST:PORT`: all of one trust domain. One is asked as long as it answers.",
    "upstream.bundle": (
        "A file with the trust domain's bundle, as PEM or as SPIFFE's document: what the first connection is verified"
        " by. Later ones are by what the server has said last."
    ),
    "upstream.attestor": (
        "How the agent proves to the server which node it is. `bound_key` is for servers of ours alone, see"
        " [a fleet](../fleet.md)."
    ),
    "upstream.token_file": (
        "`join_token`: a file with the token that `spire-server token generate` gave, and nothing else. It is good"
        " once, and not read again while the node's SVID is good. `k8s_psat`: a token of the pod's service account,"
        " which the kubelet renews in the file; it is read each time that the node attests. `bound_key`: a token of"
        " `sojourn token generate --bound`, good once; it may be gone afterwards."
    ),
    "upstream.cluster": "`k8s_psat`: the cluster's name in the server's `NodeAttestor \"k8s_psat\"`.",
    "upstream.certificate": "`x509pop`: a PEM file with the node's certificate, leaf first.",
    "upstream.key": "`x509pop`: a PEM file with the private key of it.",
    "upstream.poll": "How often the server is asked for entries and bundles.",
    "upstream.renew_at": (
        "The share of an SVID's life after which another one is signed. A smaller one leaves more of it for the time in"
        " which no server answers."
    ),
    "upstream.keep": (
        "What is kept over restarts, sealed in `data_dir`: the SVIDs of workloads with the entries, or entries alone."
    ),
    "upstream.prefetch": "Of how many entries the X.509-SVIDs are signed before anybody asks for them.",
    "identity.x509_svid_ttl": "Life of X.509-SVIDs whose entry names none.",
    "identity.jwt_svid_ttl": "Life of JWT-SVIDs whose entry names none.",
    "identity.jwt_svid_issuer": (
        "Whether the JWT-SVIDs that workloads fetch have `iss` (`tasks.issuer`), as clouds want it."
    ),
    "identity.jwt_svid_for_providers": (
        "Whether workloads may fetch JWT-SVIDs for the audiences of providers that give their tasks"
        " credentials. With one a workload gets those without a task."
    ),
    "identity.jwt_svid_anew": (
        "Audiences that take each JWT-SVID once, such as a token endpoint outside: for them one is made each"
        ' time that it is asked for. `["*"]`: for all.'
    ),
    "identity.wit_svids": "Whether WIT-SVIDs are offered, an incubating profile of the standard. They live as long as"
    " JWT-SVIDs.",
    "attestors": "A table `[attestors.NAME]` for each attestor; a configuration that names any has those alone.",
    "registration.follow": "A folder of entry files that the agent follows.",
    "tasks.types_dir": "The folder of task types; in a volume of Kubernetes `VOLUME/..data`.",
    "tasks.shadow_types_dir": (
        "A candidate set of task types that is asked beside, and decides nothing. Without a restart: `sojourn"
        " policy shadow`."
    ),
    "tasks.require_cases": (
        "Whether a set of task types, or a candidate, is only taken if each type has cases (`NAME.test.toml`)"
        " and all are answered as they should be."
    ),
    "tasks.approval_classes": (
        "Consequence classes all of whose types need someone's approval, whether they say so or not."
    ),
    "tasks.issuer": "`iss` of task tokens, and the audience of subject tokens.",
    "tasks.token_key_ttl": (
        "How long a key signs task tokens. The next one is published a minute before it signs, or half its"
        " life, if that is less."
    ),
    "signals": "Issuers of signed events, each a table `[[signals]]`.",
    "signals[].issuer": "The issuer's https URL, as in `iss`, compared byte for byte. Each issuer once.",
    "signals[].jwks": (
        "A file with its public keys; read anew when it changes. Without, they are fetched from where its metadata say"
        " (`/.well-known/ssf-configuration`). EC P-256 and P-384, and RSA of 2048 bits or"
        " more, each with a `kid`; others are passed over."
    ),
    "signals[].audience": "What `aud` must be: this text, or a list of just this.",
    "signals[].valid": "How long facts of its hold, from when they happened. Without: until it says otherwise.",
    "signals[].max_age": "How old `iat` may be. Ahead it may be by 60 s.",
    "signals[].people": (
        "The table `[people.NAME]` of whose people it may say that they have logged out or are disabled. Without: of"
        " nobody."
    ),
    "signals[].poll": "Where the agent fetches its events itself (RFC 8936). Without, they are handed in alone.",
    "signals[].stream": (
        "`create`, in the place of `poll`: the agent looks for its stream at the transmitter, and creates it if there"
        " is none (SSF 1.0, 8.1.1). `audience` is what the stream says, unless it is set."
    ),
    "signals[].poll_every": "How long between two looks while there is nothing. Each fault doubles it, up to a minute.",
    "signals[].token_issuer": "The authorization server that gives the bearer token for `poll` (client_credentials).",
    "signals[].scope": "What is asked for with that token.",
    "signals[].resource": (
        "Where that token is to be good (RFC 8707), so that it is none for other services. Empty: this is not said, for"
        " a server that refuses it."
    ),
    "signals[].client_id": "The client ID to send along with the JWT-SVID, if the server wants one.",
    "signals[].client_auth": "How the agent says who it is there, by a JWT-SVID of the node's own ID.",
    "signals[].assertion_audience": "`aud` of that JWT-SVID.",
    "signals[].timeout": "For one request as a whole.",
    "signals[].ca": "A PEM file: who may have signed the issuer's certificate.",
    "signals[].private_networks": "Networks that are not public and may be connected to.",
    "signals[].plain_http": "Whether `http://` to a loopback address is allowed too, for trying it out.",
    "signals[].publishers": (
        "SPIFFE IDs of those that may hand its events in. Without, every process on the machine may: the"
        " signature says whose the event is."
    ),
    "log.level": (
        "The least that the log tells. Log lines are JSON, on standard error; in systemd's journal each has its"
        " priority."
    ),
    "metrics.listen": (
        "Where Prometheus may read (operate/metrics.md), and `/livez` and `/readyz` answer (operate/doctor.md). Whoever"
        " reaches it may read too, and any user may take a port above 1023 before the agent starts, which it then does"
        " not."
    ),
    "listen.nodes": "Where a server listens for its nodes, over TLS; an agent has none.",
    "listen.tcp": "Where validators on other machines connect, over mutual TLS. Port 0: any that is free.",
    "listen.allowed": "The SPIFFE IDs that may use `listen.tcp`.",
    "listen.https": "The token service for other machines.",
    "listen.https_certificate": "A PEM file, leaf first, that `listen.https` shows; together with `https_key`.",
    "listen.https_key": "The private key of it, a PEM file.",
    "listen.https_url": "The URL by which clients reach it, for the metadata.",
    "listen.https_allowed": "The SPIFFE IDs whose certificates clients may show.",
    "listen.trust": "The keys by which outside parties trust this agent, for anybody.",
    "listen.trust_certificate": "A PEM file, leaf first, that `listen.trust` shows; together with `trust_key`.",
    "listen.trust_key": "The private key of it, a PEM file.",
    "listen.people": "Where issuers of people's tokens say who has logged out: `POST /people/NAME/logout`.",
    "listen.people_certificate": "A PEM file, leaf first, that `listen.people` shows; together with `people_key`.",
    "listen.people_key": "The private key of it, a PEM file.",
    "listen.trust_url": "The URL below which outside parties find the keys, if that is another.",
    "services": "Who the audience of tokens is, and alone hears of its tasks: tables `[[services]]`.",
    "services[].resource": "The service's resource, an absolute URI, compared byte for byte. Each once.",
    "services[].workloads": "The SPIFFE IDs of the service's own processes.",
    "services[].name": "The service's name, for people (RFC 9728, 2).",
    "providers": "A table `[providers.NAME]` for each provider outside that gives credentials to tasks.",
    "people": (
        "A table `[people.NAME]` for each issuer of people's tokens. NAME has small letters, digits and hyphens:"
        " policies say `NAME|SUBJECT`."
    ),
    "people.NAME.timeout": "For one request to the issuer.",
    "people.NAME.ca": "A PEM file: who may have signed the certificate of the issuer's host.",
    "people.NAME.private_networks": "Networks that the issuer may be in and that are not public.",
    "people.NAME.plain_http": "Whether an issuer at a loopback address may be asked over plain http, to try it out.",
    "people.NAME.issuer": "The issuer's URL, as in `iss`, compared byte for byte. Each issuer once.",
    "people.NAME.jwks": "A file with its public keys, read anew when it changes; the issuer is not asked then.",
    "people.NAME.algorithms": "By which its tokens may be signed.",
    "people.NAME.longest": "How long a token may live: `exp` less `iat`.",
    "people.NAME.fresh": "How old `iat` may be when a task begins with the token, or is renewed.",
    "people.NAME.ends": (
        "With what the tasks for its people end, if no newer token is brought: with the `token`, or with the `session`,"
        " the end of which `listen.people` must hear."
    ),
    "people.NAME.session_longest": (
        "How long after `auth_time` such tasks end, whatever is renewed; where a token has none, after its `iat`."
    ),
    "people.NAME.recheck": (
        "How often the issuer is asked whether a token that tasks live by is still active (RFC 7662); first when it is"
        " brought."
    ),
    "people.NAME.recheck_grace": (
        "How long it may not answer, after the time at which it was to be asked again. Such tasks are suspended then,"
        " and end after ten times that."
    ),
    "people.NAME.client_id": "What the agent is called as a client there, if that must be sent along.",
    "people.NAME.client_auth": (
        "How it authenticates there, by a JWT-SVID of its own SPIFFE ID; with `private_key_jwt` that is its `iss` as"
        " well, and what it must be called as a client there."
    ),
    "people.NAME.opaque": (
        "Whether access tokens that are no JWTs are taken, by what the issuer says of them (RFC 7662) when they are"
        " brought. It needs `recheck` and `access_token_audiences`; a workload may bring those of one issuer alone."
    ),
    "people.NAME.groups": "The claim that has the person's groups, a list of texts. A slash in front is left out.",
    "people.NAME.claims": "Further claims that are read for policies: texts, whole numbers, true or false.",
    "people.NAME.scopes": (
        "What the scope of a person's access token lets be done: by each value, actions of task types. Without it"
        " scopes are not looked at; with it an access token with none of these lets nothing be done. ID tokens have"
        " no scope."
    ),
    "people.NAME.authorization_details": (
        "`bound`: the authorization_details of a person's access token (RFC 9396) are the most that a task does by it,"
        " and a token whose details are not of a task type is refused. `ignore`: they are passed over."
    ),
    "people.NAME.prefix": (
        "What stands before the subject in `sub` of task tokens, so that services take nobody for somebody of another"
        " issuer. Where there are several issuers each needs one, and none begins with another's; `sub_id` has none."
    ),
    "people.NAME.audit": (
        "What audit records call its people: a `pseudonym`, which `sojourn person pseudonym` finds, or `plain`: NAME, a"
        " bar and the subject, for whoever reads the journal."
    ),
    "people.NAME.presenters": "Who may bring which of its tokens: tables `[[people.NAME.presenters]]`.",
    "people.NAME.presenters[].workloads": "The SPIFFE IDs of the workloads that this table is of.",
    "people.NAME.presenters[].id_token_audiences": (
        "Client IDs of these workloads at the issuer: an ID token must be for exactly one of them."
    ),
    "people.NAME.presenters[].access_token_audiences": (
        "What an access token must be for that these workloads receive, one of them at the least."
    ),
    "people.NAME.presenters[].authorized_parties": (
        "Client IDs to which such a token may have been given: `azp`, `client_id`, `appid`, `cid`."
    ),
    "people.NAME.presenters[].id_jag_clients": (
        "What the issuer calls these workloads in an ID-JAG (`client_id`), which they may bring then; each one's own"
        " SPIFFE ID will do too. Without it they bring none."
    ),
    "federation.ca": "A PEM file of the authorities for bundle endpoints of the profile `https_web`.",
    "federation.public_only": "Whether bundle endpoints at private addresses are refused.",
    "limits.connections_per_uid": (
        "Open connections that one user may have; who has a range in `/etc/subuid` is one user with all of it."
    ),
    "limits.connections_per_uid_per_second": "New connections of one user.",
    "audit.max_bytes": "How large the database may be before the oldest records of the audit journal make room.",
    "audit.keep": (
        "Nothing younger is pruned, whatever the size of the database: when it is full by that, no task begins and no"
        " token is given (`audit_full`)."
    ),
    "audit.sinks": "Where else the journal's records go: tables `[[audit.sinks]]`, see [sinks](../oversight.md#sinks).",
    "audit.sinks[].name": "What it is called, in `sojourn audit sinks` and in metrics; by that it keeps its place.",
    "audit.sinks[].kind": (
        "What it is: a file here; or a receiver of lines (`https`), of OpenTelemetry's logs (`otlp`), of syslog."
    ),
    "audit.sinks[].format": (
        "What its lines are: records as the agent has them, or events of [OCSF](ocsf.md) with the record within."
    ),
    "audit.sinks[].include": "Events whose records go there.",
    "audit.sinks[].exclude": "Events whose records do not go there. It is this or `include`.",
    "audit.sinks[].required": "Whether nothing is pruned that it has not had; see `audit.keep`.",
    "audit.sinks[].start": (
        "Where a sink begins that is new: with the records of the start that knows it first, or with the oldest ones."
    ),
    "audit.sinks[].timeout": "For one batch of records to be taken.",
    "audit.sinks[].path": "`file`: to which records are appended, a line each. Its folder must be there.",
    "audit.sinks[].max_bytes": "`file`: how large it becomes before it is renamed to PATH.1, and another one begun.",
    "audit.sinks[].files": "`file`: how many of those that are full are kept.",
    "audit.sinks[].url": "`https`, `otlp`: to which batches are posted; http for loopback addresses alone.",
    "audit.sinks[].address": "`syslog`: the receiver's host and port; 6514 is the usual one.",
    "audit.sinks[].tls": "`syslog`: whether it is sent over TLS; without it to loopback addresses alone.",
    "audit.sinks[].token_file": (
        "`https`, `otlp`: a file with the bearer token that the receiver is shown, and nothing else; read each time."
    ),
    "audit.sinks[].ca": "But for `file`: a PEM file: who may have signed the receiver's certificate.",
    "audit.sinks[].svid": "But for `file`: whether the agent shows its own X.509-SVID as its certificate.",
    "audit.sinks[].private_networks": "But for `file`: networks that the receiver may be in and that are not public.",
    "audit.witnesses": (
        "Who cosigns the signed journal's checkpoints: tables `[[audit.witnesses]]`, see"
        " [witnesses](../oversight.md#witnesses)."
    ),
    "audit.witnesses[].name": "What it is called here, in `sojourn status` and in metrics.",
    "audit.witnesses[].url": "Its address, below which `/add-checkpoint` is; http for loopback addresses alone.",
    "audit.witnesses[].key": "Its verifier key: no cosignature counts that is not by it.",
    "audit.witnesses[].every": "How often it is sent a checkpoint at most.",
    "audit.witnesses[].timeout": "For one checkpoint to be cosigned.",
    "audit.witnesses[].ca": "A PEM file: who may have signed its certificate.",
    "audit.witnesses[].private_networks": "Networks that it may be in and that are not public.",
    "audit.timestamps.url": (
        "Where a time-stamp authority (RFC 3161) is asked, which vouches for when a checkpoint was there; see"
        " [time stamps](../oversight.md#time-stamps). http for loopback addresses alone."
    ),
    "audit.timestamps.tsa_ca": "A PEM file: the root certificates that its own must lead to, or no stamp counts.",
    "audit.timestamps.every": "How often a checkpoint is stamped.",
    "audit.timestamps.timeout": "For one stamp.",
    "audit.timestamps.ca": "A PEM file: who may have signed the certificate of its TLS.",
    "audit.timestamps.private_networks": "Networks that it may be in and that are not public.",
    "audit.usage_keep": (
        "For how long the daily sums are kept of what tasks were granted and used, which `sojourn usage` reports. They"
        " are kept apart from the journal's records, and stay where those are pruned."
    ),
    "approval_notifier.command": (
        "A program, by its absolute path, and its arguments, that gets each notice of a request for approval."
    ),
    "approval_notifier.webhook": "Or an https URL to which it is posted; http for loopback addresses alone.",
    "approval_notifier.token_file": (
        "A file with the bearer token that the webhook is shown, and nothing else; read each time."
    ),
    "approval_notifier.ca": "A PEM file: who may have signed the webhook's certificate.",
    "approval_notifier.private_networks": "Networks that the webhook may be in and that are not public.",
    "approval_notifier.timeout": "For one attempt.",
}
