"""Every limit of the agent and of the SDK, each with its reason; those of what operates it are in operating_limits.py.

Units stand in the names. What an operator may change is in config.py and starts from here. It is a table, no code, and
stays one file however long: whoever asks what an attacker can have of anything reads it from top to bottom. What a
connection of HTTP/2 and its streams may have is beside those, in http2/limits.py.
"""

from sojourn.operating_limits import *  # noqa: F403  # so that all are imported from here

# --- SPIFFE ---------------------------------------------------------------------------------------------------------
SPIFFE_ID_MAX_BYTES = 2048  # SPIFFE ID 2.3: no longer ones are generated
TRUST_DOMAIN_MAX_BYTES = 255  # SPIFFE ID 2.3: what a URI host may have
HINT_MAX_BYTES = 1024  # Workload API 8
JSON_DEPTH = 100  # objects and lists within each other, in what comes from others
JWT_LEEWAY_SECONDS = 60  # clock skew between hosts; the same that SPIRE and go-spiffe allow

# --- lifetimes ------------------------------------------------------------------------------------------------------
CONFIGURED_MAX_SECONDS = 36_500 * 86_400  # a century, for what has no limit of its own: dates go no further than 9999
SVID_TTL_MIN_SECONDS = 10  # below, a rotation could not finish before the SVID ends on a busy machine
SVID_TTL_MAX_SECONDS = 7 * 86_400  # an identity for longer is a standing credential
TASK_MIN_SECONDS = 1
TASK_MAX_SECONDS = 86_400  # longer work is several tasks
TOKEN_TTL_MAX_SECONDS = 60  # what a validator that hears nothing can be wrong by
TOKEN_TTL_HIGH_CLASS_SECONDS = 15
TOKEN_SKEW_SECONDS = 5  # how far ahead `iat` of a task token may be; `exp` has no leeway, so that an end is an end
NOT_BEFORE_SLACK_SECONDS = 10  # verifiers whose clock runs behind
ROTATION_JITTER_SHARE = 0.1  # of the lifetime, drawn once for each SVID, so that a fleet does not rotate as one

# --- the door -------------------------------------------------------------------------------------------------------
HELD_BYTES_MAX = 256 * 1024  # sent by a caller of the SDK's TLS bridge before the inner side is up
DESCRIPTORS_PER_CONNECTION = 2  # its socket and the pidfd
DESCRIPTORS_RESERVED = 384  # database, logs, listeners, attestation, runners
PROCESSES_KEPT_OPEN = 64  # callers that come again and again, two descriptors each and a page of the kernel's for each
RUNNERS_KEPT = 64  # processes that ran callers, a descriptor each: those of callers that come again and again
HOLDERS_SHARE = 0.25  # of the descriptors: for processes that hold tasks; connections have the rest
CONNECTIONS_PER_UID_SHARE = 0.5  # of all connections: one uid cannot take the last place
ADMIN_CONNECTIONS = 64
CONNECTIONS_PER_UID_PER_SECOND = 2_000
CONNECTION_BURST_PER_UID = 4_000
BURSTS_KEPT = 10_000  # owners of whom is known how much of their burst is left
SUBORDINATE_LOOK_SECONDS = 5.0  # between looks whether /etc/subuid has changed
SUBORDINATE_START_SECONDS = 5.0  # for names in it that a directory tells: it may be down when the machine starts
STREAMS_PER_UID = 5_000  # at about 8 KiB each
SECRETS_PER_STREAM = 1_000  # resource names on one SDS stream; Envoy asks for one
SECRET_NAMES_BYTES_PER_UID = 16 * 1024 * 1024  # that all of a user's delta streams are subscribed to, as kept
SECRET_NAME_BYTES = 256  # that keeping a name takes beyond its length
CALLS_PER_UID = 64  # that are being answered at once; over that a caller is told to come back
CALLS_PER_TURN = 8  # of one caller's that are begun before others have a turn: at 100 to 600 us each
CALLS_PER_TURN_IN_COMPANY = 1  # while others ask for something too
COMPANY_SECONDS = 10.0  # for which others count who have asked for something
TURN_SECONDS = 0.001  # of reading; a turn is over then as well
TURNS_BEGUN_PER_ROUND = 64  # of callers who ask for the first time in it, of however many
TURNS_GIVEN_PER_ROUND = 16  # to callers who wait for another one, of however many they are
PRECEDENCE_SECONDS = 0.001  # for which a caller who asks for little goes first, unless it is answered before
PUSH_SECONDS = 0.005  # of pushes to streams, before others are answered
ACCEPTED_PER_ROUND = 64  # connections, at some 10 us each: who waits behind them is not known before
LOOKED_AT_PER_ROUND = 256  # with those that are closed at once, so that they make room for others in the line
ACCEPT_PAUSE_SECONDS = 1.0  # where the kernel has no room for another one
MESSAGES_PER_ROUND = 16  # of one caller's calls that send several: at 100 to 300 us each a few ms
REQUESTS_HELD_BYTES = 64 * 1024 * 1024  # of one user's requests that are not read yet or not whole: two of the largest
REFUSALS_LOGGED_PER_SECOND = 10  # of one user, so that nobody floods the log
REQUEST_SECONDS = 10.0  # for the request of a gRPC call to come
PUBLIC_REQUEST_MAX_BYTES = 256 * 1024  # two tokens, or the node of an Envoy
MESSAGE_MAX_BYTES = 4 * 1024 * 1024  # answers, as clients take them
ADMIN_MESSAGE_MAX_BYTES = 32 * 1024 * 1024  # ten thousand entries in one answer
LISTEN_BACKLOG = 4096
HELD_WAITING_MAX = 65_536  # more than wait in a socket of systemd's: its Backlog=, and net.core.somaxconn
PATH_LINKS_MAX = 40  # that lead to a socket, one to the other: as many as the kernel follows
SOCKET_PATH_MAX_BYTES = 107  # sun_path
HTTP_BODY_MAX_BYTES = 64 * 1024  # two tokens and some authorization_details
HTTP_FAREWELL_SECONDS = 1.0  # for the answer to a head that is too large
HTTP_HEAD_FIELDS = 100  # as many as other servers take
HTTP_KEEP_ALIVE_SECONDS = 30
HTTP_READ_BYTES = 16 * 1024  # that are read in one step
HTTP_PIPELINE = 8  # requests sent ahead on a connection
HTTP_REQUESTS_AT_ONCE = 32  # of one user, workload or address: others wait for no more than these
HTTP_REQUESTS_WAITING = 10_000  # of one as well, behind those; each is about 8 KiB
HTTP_REQUEST_SECONDS = 10.0  # for a request to arrive whole
ACCEPTED_CALLS_SECONDS = 0.1  # at a stop, for the requests of those that were accepted, where others may wait in line
DRAIN_SECONDS = 5.0  # for what must be written before the end
GRACE_SECONDS = 1.0  # for calls that are under way
JWT_SVIDS_KEPT = 10_000  # ready to be served again; each is about 2 KiB with its claims
JWT_SVIDS_KEPT_BYTES = 16 * 1024 * 1024  # of those, as text: audiences may make each 60 KiB
JWT_SVIDS_KEPT_PER_ENTRY = 1_000  # so that who asks for ever other audiences does not take the room of all others
JWT_SVIDS_KEPT_PER_ENTRY_BYTES = 2 * 1024 * 1024
JWT_AUDIENCES_ANEW = 100  # that the configuration names
SVIDS_UNWATCHED_KEPT = 10_000  # with keys, that nobody watches: a fleet's past identities; each is about 10 KiB
SIGNATURE_SECONDS = 10.0  # for one that is asked of others, once it has its place
SIGNATURE_WAIT_SECONDS = 10.0  # for a caller to wait for one, with the time until it has its place
SIGNATURES_AT_ONCE = 64  # under way, of each kind of SVID; others wait for their turn
PREFETCHED_AT_ONCE = 32  # before anybody asks: half of the places, so that whoever does ask waits for none of them
SIGNATURES_AT_ONCE_PER_ENTRY = 16  # so that one that does not answer for an entry leaves places to the others
JWT_SIGNATURES_PER_ENTRY = 100  # that are waited for: who asks for ever other audiences fills no memory
SIGNATURE_RETRY_SECONDS = 1.0  # after the first failure; each further pause is twice as long
SIGNATURE_RETRY_MAX_SECONDS = 30.0  # so that a signer that is back is soon asked again
ROOT_SECONDS = 15.0  # for one signature of a root that has to be waited for: hardware, or a service elsewhere
ROOT_START_SECONDS = 5.0  # that a start waits for its first intermediate; it comes behind it otherwise
UPSTREAM_ROOTS = 100  # of an upstream authority: each is looked at, and goes out to every workload
UPSTREAM_CHAIN = 32  # certificates that are looked at for a chain: some tell one twice, and the root
ISSUER_LIVES = 3  # of the longest SVID's, that an intermediate of an upstream authority has at the least
LEAD_SHARE = 1 / 4  # of an intermediate's life, that its root may be published before it signs
ROOT_RETRY_SECONDS = 1.0  # after the first failure; each further pause is twice as long
ROOT_RETRY_MAX_SECONDS = 300.0  # what is signed by a root lives for hours, and is asked for at half of that
KEY_OPEN_SECONDS = 30.0  # for the key process to start, load the vendor's library, and log in to the token
KEY_ANSWER_SECONDS = 10.0  # for one signature in the token: less than ROOT_SECONDS, so that it is told who is silent
KEY_SERVICE_CONNECTIONS = 8  # of agents to a key process that is a service: one has one, and a restart two
KEY_LOOK_SECONDS = 10.0  # between two looks whether the token is there
KEY_RETRY_SECONDS = 1.0  # after a failed start of the key process; each further pause is twice as long
KEY_RETRY_MAX_SECONDS = 60.0
KEY_PROCESSES_STUCK = 4  # that cannot be ended, since they wait for a device: then no other is started
KEY_PROCESS_MEMORY_BYTES = 512 * 1024 * 1024
KEY_PROCESS_FILE_BYTES = 16 * 1024 * 1024  # of one file: a token that lies in files has some KB for each key
KEY_MESSAGE_MAX_BYTES = 8 * 1024 * 1024  # the draft of a list of REVOKED_SVIDS has some 130 bytes for each, as base64
KEYS_OF_NODE_IN_TOKEN = (
    64  # of one node, also of roots that are gone: more are made by a node that keeps losing its data
)
ROOT_SIGNATURES_AN_HOUR = 20  # by the keys in a token: some ten starts, and what is revoked meanwhile
ROOT_TESTS_AN_HOUR = 60  # beside these: they certify nothing
ROOT_LISTS_AN_HOUR = 12  # of these, so that lists leave room for intermediates
REISSUE_WAIT_SECONDS = 30.0  # for whoever has SVIDs replaced; those that take longer are replaced behind it
REISSUED_AT_ONCE = 20  # X.509-SVIDs, before others have a turn: about 5 ms
REVOKED_SVIDS = (
    20_000  # of a kind, that have not ended; in CRLs, also of what has: 40 bytes each, which fit into an answer
)
REVOCATION_ROWS = 2 * REVOKED_SVIDS  # also of what has ended, which is forgotten last
REVOKED_IDENTITIES = 20_000  # each by one row, however many SVIDs it has had; some 500 bytes
REVOCATIONS_KEPT_SECONDS = SVID_TTL_MAX_SECONDS + 86_400  # that the agent has run, at the least
REVOCATIONS_LISTED = 5_000  # identities in one answer, and no more than PAGE_BYTES of them
REVOKED_TOLD = 100  # of an identity's X.509-SVIDs, in one answer and one record
QUIET_SECONDS = 0.05  # after which no more answers are expected
UNMATCHED_HOLD_SECONDS = 1.0  # so that a registration just behind a fetch is not missed

# --- the listener for validators on other machines ------------------------------------------------------------------
REMOTE_CONNECTIONS = 1_000  # with those whose handshake is under way
REMOTE_CONNECTIONS_PER_ID = 500  # of one SPIFFE ID, which all replicas of a service share
REMOTE_DESCRIPTORS_SHARE = 0.2  # of the descriptors: where there are few, there are fewer connections; each takes one
REMOTE_STREAMS_PER_ID = 1_000
REMOTE_HANDSHAKES = 256  # under way, by those who are not known yet; when full, whoever has most of them makes room
REMOTE_HANDSHAKES_PER_ADDRESS = 64
REMOTE_HANDSHAKE_SECONDS = 5.0
TLS_HANDSHAKE_MAX_BYTES = 16 * 1024  # of a client: a chain of four RSA keys of 4096 bits is half of that
TLS_KEY_UPDATES = 32  # of one connection, by the other side: one is due after hundreds of GiB, and takes some 30 us
TLS_KEY_UPDATES_SECONDS = 60.0  # in which there may be so many
REMOTE_SILENT_SECONDS = 30  # after which a network peer that acknowledges nothing is gone
HTTP_RETRY_SECONDS = 2  # for a client of the token service to come again after, when it is "not now"
METADATA_AGE_SECONDS = 60  # that the documents of the token service may be kept: types come and go
HTTPS_CONNECTIONS = 2_000  # of clients of the token service on other machines
HTTPS_CONNECTIONS_PER_ID = 500  # of one SPIFFE ID, which all replicas of a client share
HTTPS_CONNECTIONS_PER_ADDRESS = 200  # of one address whose clients show no certificate
HTTPS_UNKNOWN_SHARE = 0.5  # of the connections: for all clients that show none; the others find places
HTTPS_DESCRIPTORS_SHARE = 0.1  # of the descriptors; a connection takes one
TRUST_CONNECTIONS = 500  # of outside parties that fetch keys: each asks for a document or two, and goes
TRUST_CONNECTIONS_PER_ADDRESS = 50
TRUST_CONNECTIONS_PER_SECOND = 50  # new ones of one address: a handshake takes a millisecond
TRUST_REQUESTS_PER_SECOND = 200  # of one address, behind which there may be a whole cloud
TRUST_DESCRIPTORS_SHARE = 0.05  # of the descriptors; a connection takes one
TRUST_AGE_SECONDS = 900  # that the documents may be kept at the most: so late a revoked key may be trusted
PUBLISHED_LOOK_SECONDS = 5.0  # between looks of `bundle publish --watch` whether the documents have changed
CERTIFICATE_LOOK_SECONDS = 5.0  # between looks whether the certificate's file has changed
PEM_MAX_BYTES = 256 * 1024  # a long chain of large keys
REMOTE_LINGER_SECONDS = 2.0  # of a connection that is over: longer than a heartbeat, so that its streams say why
CHAINS_CHECKED_AT_ONCE = 20  # before others have a turn: about 10 ms

METRICS_CONNECTIONS = 16  # of scrapers, of which there are one or two
METRIC_TYPES = 1_000  # of tasks, each with some time series of its own: as many as there may be at once
HEALTH_ANSWER_MAX_BYTES = 64 * 1024  # that the command reads of whoever stands at the agent's socket: six small answers
METRICS_SECONDS = 10.0  # for a request to come and its answer to be taken, as long as Prometheus waits

# --- memory ---------------------------------------------------------------------------------------------------------
# New objects before Python looks for cycles among them. Its own 700 has it look 250 times at what imports make, all of
# which stays; 20,000 young objects are looked through in a millisecond or two.
COLLECTED_AFTER = 20_000
THREAD_TURN_SECONDS = 0.0005  # that one thread keeps another of the agent waiting for the interpreter
# The agent's loop tells by a beat that it turns. If none comes, it stands still, and what it may be waiting for in the
# kernel is broken off: each thing of many that wait there one after another costs BREAK_EVERY_SECONDS then.
BEAT_SECONDS = 0.025  # 40 beats a second, and looks at them, are half a hundredth of a core
STANDSTILL_SECONDS = 0.1  # between two beats; log, status and metrics tell of it
BREAK_EVERY_SECONDS = 0.0005
# After a standstill in which the loop waited, the next one of the same maker is broken off sooner.
WARY_SECONDS = 60.0
WARY_BEAT_SECONDS = 0.0025
WARY_BREAK_SECONDS = 0.0075
STANDSTILLS_LOGGED_PER_SECOND = 1

# --- attestation ----------------------------------------------------------------------------------------------------
ATTESTOR_DEADLINE_SECONDS = 5.0
ATTESTOR_REASON_MAX = 300  # characters of why an attestor could not tell: others than ours may say anything
ATTESTATION_FRESH_SECONDS = 60.0  # after that the whole attestation is done again
ATTESTATION_SHARED_SECONDS = 1.0  # in which the same process is not attested anew for another connection
ATTESTATIONS_SHARED = 256  # processes
STREAM_ATTESTED_SECONDS = 60.0  # an open stream that nothing is pushed to is attested again after that
ATTESTOR_RETRY_SECONDS = 5.0  # or after that, if an attestor could not tell
STREAMS_LOOKED_AT_SECONDS = 1.0  # program and cgroup of each process that holds streams
STREAMS_WOKEN_AT_ONCE = 32  # whose calls have steps of their own then, before others have a turn: about 5 ms
PROCESSES_LOOKED_AT_ONCE = 64  # at about 12 us each, before others have a turn
SELECTORS_PER_CALLER = 2_000
GROUPS_PER_CALLER = 1_000  # that a process may be in: each has a number and a name; directories give some hundreds
PROC_START_SECONDS = 5.0  # for the process that reads what of /proc the agent does not: it takes about 20 ms
PROC_LOOK_SECONDS = 0.05  # without an answer of it, after which is looked whether it is held up; twice, it is given up
PROC_ANSWER_SECONDS = 1.0  # after that it is given up in any case
PROC_HELD_UP_SECONDS = 10.0  # that nothing is asked about a user's processes who held it up, and while it hangs
DOOMED_LOOK_SECONDS = 1.0  # for which it holds that no signal has ended a process
LOOK_SHARED_SECONDS = 0.001  # for which calls of one process that are answered in one round share a look at it
CROWDED_SECONDS = 1.0  # that no process of a user is looked at who had one with more: the kernel takes 30 ms for it
SELECTOR_TYPE_MAX_BYTES = 255
SELECTOR_VALUE_MAX_BYTES = 4_096
PROGRAM_MAX_BYTES = 256 * 1024 * 1024  # no larger program is hashed: that would take about a second
PROGRAM_SIZE_LIMIT_MAX_BYTES = 64 * 1024**3  # the most that an operator may set instead
PROGRAM_DIGESTS_KEPT = 4_096
CONTAINERS_NESTED_MAX = 8  # containers in containers: the folders of all are looked at
CONTAINER_CGROUPS_MAX = 2_000  # that a container made in its own: more take longer to look through than others may wait
CONTAINER_PROCESSES_MAX = 20_000  # more cannot be looked through within the time that an attestor has
ACCOUNT_FILE_MAX_BYTES = 16 * 1024 * 1024  # of the machine's /etc/passwd and /etc/group: some 200,000 users
MOUNT_TABLE_MAX_BYTES = 8 * 1024 * 1024  # of a process: some 40,000 mounts; anyone may make 100,000
PROGRAM_SETTLED_SECONDS = 2.0  # a file changed less than that ago is read anew: old file systems count whole seconds
PROGRAM_READ_SECONDS = 4.0  # of ATTESTOR_DEADLINE_SECONDS: what else is known of the process is told then
SLOW_PROGRAMS_AT_ONCE = 4  # threads for file systems that may stand still: the other half is for those that do not
MACHINE_MOUNTS_FRESH_SECONDS = 1.0  # read where threads for programs are few
NAMES_WAITED_FOR_SECONDS = 2.0  # of a user or group, from wherever this machine has them
NAMES_ASKED_AT_ONCE = 2  # threads
NAMES_KEPT = 4_096
NAMES_KEPT_PER_USER = 1_024  # of those that a user's processes asked for first
NAMES_FRESH_SECONDS = 60.0
SYSTEM_BUS_SECONDS = 4.0  # for all that systemd is asked of one process: less than an attestor's deadline, to say so
SYSTEMD_ABSENT_SECONDS = 1.0  # it leaves its bus for a moment where it is updated, and comes back
SYSTEMD_ASKED_AT_ONCE = 16  # about processes, with up to 7 calls: a bus lets one connection wait for 128 answers
BUS_ANSWER_MAX_BYTES = 65_536  # an answer of systemd's to what is asked has some hundreds
BLOCKING_THREADS = 8
ATTESTATIONS_PER_CGROUP = 2  # at once, of one uid
ATTESTATIONS_PER_UID = 64  # at once: containers share uids, and the runtime of one may keep it waiting
PROGRAMS_PER_UID = 2  # threads that read them, and as many for those that no slow file system is asked for

# Attestors that do not come with Sojourn have a process each.
HOST_START_SECONDS = 10.0  # to import it and to make it of its settings
HOST_SILENT_SECONDS = 1.5  # in which its event loop does not come to answering: it stands still, and is ended
HOST_CLOSE_SECONDS = 2.0
HOST_UNANSWERED_MAX = 8  # questions in a row that it let pass the deadline: then it is started anew
HOST_REQUESTS_AT_ONCE = 256  # more wait: several times what one uid can ask at once
HOST_MESSAGE_MAX_BYTES = 1024 * 1024  # read in about 10 ms; 2,000 selectors are less than 200 KiB as they are
HOST_DETAIL_MAX = 4_096  # characters of a traceback
HOST_MEMORY_MAX_BYTES = 512 * 1024 * 1024
HOST_FILES_MAX = 1_024
HOST_READ_BYTES = 16 * 1024  # of what it prints, at once
HOST_READ_PAUSE_SECONDS = 1 / 64  # between two of these: 1 MiB a second; a flood waits in its process
HOST_LINE_MAX = 1_000  # characters of a line that it prints
HOST_LINES_PER_SECOND = 20  # that are logged
HOST_RESTARTS_AT_ONCE = 10  # in a row without waiting: each takes the processor for a third of a second
HOST_RESTART_EVERY_SECONDS = 5.0  # in the long run
HOST_RESTART_WAITED_SECONDS = 1.0  # a caller waits for a start that is no farther away
HOST_STUCK_MAX = 4  # processes that cannot be ended, since they wait for a file system: then no other is started

# --- container engines ----------------------------------------------------------------------------------------------
ENGINE_SECONDS = 3.0  # for all that is asked about a container, of the five that an attestor has
ENGINE_ANSWER_MAX_BYTES = 1024 * 1024  # about a container; usually that is some 10 KiB
USER_ENGINE_ANSWER_MAX_BYTES = 256 * 1024  # of a user's own engine, which says what they like: read in some 20 ms
ENGINE_FAILURES = 2  # in a row, after which one question at a time is asked: nobody waits in line for it
ENGINE_LATE_AGAIN_SECONDS = 1.5  # before it is asked again what it did not answer in time: one container may be stuck
ENGINE_LATE_KEPT = 1_024  # of those questions
ENGINE_USERS = 256  # whose own engines are known
CONTAINERS_KEPT = 1_024  # that engines told of, at about 10 KiB each
CONTAINERS_KEPT_PER_USER = 64  # of those, that a user's own engines told of
CONTAINER_UNKNOWN_SECONDS = 60.0  # that an engine is not asked again about a container that it does not know
CONTAINERS_NESTED = 4  # around a container, that are asked about if it is not known
CONTAINER_WITHHELD = 100  # labels and variables that are told with the reason why they are not given
USER_SOCKETS_AT_ONCE = 3  # threads that look for them: a user's folder may be on a file system that never answers

# --- files ----------------------------------------------------------------------------------------------------------
CONFIG_MAX_BYTES = 1024 * 1024  # also of a task type or its policy
ENTRIES_FILE_MAX_BYTES = 32 * 1024 * 1024  # more than ENTRIES_PER_BATCH entries take
FOLLOWED_FILES = 10_000  # of a folder of entries
FOLLOWED_LOOK_SECONDS = 1.0
FOLLOWED_SETTLED_SECONDS = 0.2  # a folder that changed within that may be half written
FOLLOWED_RETRY_SECONDS = 5.0  # what was refused may be good now although no file has changed

# --- registration ---------------------------------------------------------------------------------------------------
SELECTORS_PER_ENTRY = 100
DNS_NAMES_PER_ENTRY = 100
ENTRIES_PER_BATCH = 10_000
ENTRY_ID_MAX_BYTES = 255
ENTRY_PRIORITY_MAX = 1_000_000  # and as much below 0: room for every scheme, and JSON and int32 hold it
TEMPLATE_PLACEHOLDERS = 16  # of one SPIFFE ID, or of the claims of one entry: each is looked for in all selectors
JWT_CLAIMS_PER_ENTRY = 32
JWT_CLAIMS_MAX_BYTES = 4_096  # as JSON, also once filled: headers have room for 8 KiB
JWT_CLAIMS_NESTED_MAX = 5  # lists and objects in each other
JWT_CLAIM_NAME_MAX_BYTES = 255
FOREIGN_DOMAINS = 1_000  # bundles of other trust domains
CAUTIONS_SECONDS = 5.0  # to look at the programs that new entries ask for; the entries are registered meanwhile
INTERPRETER_MAX_BYTES = 256 * 1024 * 1024  # of a program that is compared by its digest
BLIND_INDEXES_KEPT = 8  # one for each set of attestors that failed together; each may hold all entries
MATCHES_KEPT = 1_024  # sets of selectors whose entries are known, until an entry changes
MATCHED_SELECTORS_MAX = 64  # in such a set: all of them take some 10 MiB at most
EXPLAINED_ENTRIES = 20  # nearest misses shown

REVOCATION_WRITE_SECONDS = 3.0  # that a client waits for its revocation, which is in force, to be on disk

# --- services -------------------------------------------------------------------------------------------------------
SERVICES = 1_000  # that the configuration names
SERVICE_WORKLOADS = 100  # of one service

# --- tokens ---------------------------------------------------------------------------------------------------------
TOKEN_MAX_BYTES = 16 * 1024
CLAIMS_NESTED_MAX = 30  # protobuf parsers stop at a hundred messages within each other, three a level
AUDIENCES_PER_JWT_SVID = 20
AUDIENCE_MAX_BYTES = 2_048
BOUND_PARAMS_MAX_BYTES = 4_096  # of a task's parameters that its tokens carry: headers have room for 8 KiB
USED_TOKENS = 2_000_000  # assertions that are remembered, at about 200 bytes; when full, ended ones are forgotten early
USED_TOKENS_KEPT_SECONDS = 86_400  # past their end: a day for a clock that was set
USED_TOKENS_PURGE_SECONDS = 60
FORGOTTEN_SPANS = (
    64  # of time in which forgotten ones had ended: one, and one more for each time that a clock stood ahead
)
FORGOTTEN_GAP_SECONDS = 60  # between two that ended: within it they are in one span

GRANTS_PARSED_KEPT = 1_024  # at about 500 bytes each
ORIGINS_KEPT = 1_024  # of tasks, at about 500 bytes each: where a task comes from, as others have it alike
LIVES_KEPT = 64  # of tasks that live as long as others: one for each length
SPIFFE_IDS_SIGNED_KEPT = 4_096  # that are SPIFFE IDs, of those that the authority signed last
SPIFFE_IDS_PARSED_KEPT = 4_096  # at about 300 bytes each
HEADERS_KEPT = 256  # of tokens, parsed: one of each key and kind, at most TOKEN_MAX_BYTES each
SIGNATURES_KEPT = 4_096  # of tokens that a service saw last, at about 1 KiB each
TOKENS_READ_KEPT = 256  # of those that came back with a good signature, as they were read; about 4 KiB each
TASK_SIGNATURES_KEPT = 2_048  # of task tokens that the agent signed or saw last, at about 1 KiB each
JWT_SVIDS_READ_KEPT = 2_048  # whose signature was good, of those that the agent saw last; about 3 KiB each, read
JWT_SVIDS_READ_KEPT_BYTES = 4 * 1024 * 1024  # of those, as text
JWT_SVIDS_READ_KEPT_PER_ID = 512  # of one SPIFFE ID, which may make any number for itself
JWT_SVIDS_READ_KEPT_PER_ID_BYTES = 1024 * 1024
JWT_SVIDS_READ_SECONDS = 600.0  # after which one is read again, and its signature checked
VALIDATIONS_KEPT = 1_024  # answers about those, ready to be sent again
VALIDATIONS_KEPT_BYTES = 4 * 1024 * 1024  # of those, with the tokens
# Of running, that a key is published on which had ended by the wall clock when the agent started: a machine whose clock
# starts weeks ahead is put right long before.
JWT_KEY_KEPT_ENDED_SECONDS = 3_600
JWT_KEY_OVERLAP_SECONDS = 3_600  # that a JWT authority is published before it signs: who keeps keys looks hourly
OVERLAP_SHARE = 1 / 3  # of the life of those, at the most: the rest is for what is signed to end
RSA_KEY_BITS = 2_048  # of an authority for RS256: what all clouds take; one signs for a month, in half a millisecond
TOKEN_KEY_SECONDS = 86_400  # that a key signs task tokens
TOKEN_KEY_AHEAD_SECONDS = 60  # that it is published before: so long others may keep the keys
STATUS_LIST_ENTRIES = 65_536  # of one list: 16 KiB before it is packed; then there is another one
STATUS_LIST_TTL_SECONDS = 5  # that whoever fetches a list may keep it
STATUS_LIST_AGE_SECONDS = 15  # after which it is not to be believed
STATUS_LIST_REMADE_SECONDS = 0.2  # after a change, at the earliest: signing and packing take half a millisecond
PROOF_URL_MAX = 8_192  # characters of the URL of a request that a proof is made for
PROOF_METHOD_MAX = 32  # characters
PERSON_SUBJECT_MAX_BYTES = 255  # OpenID Connect Core 2: no issuer's `sub` is longer

# --- proofs of possession -------------------------------------------------------------------------------------------
DPOP_AGE_SECONDS = 60  # how old a proof may be; a client makes a new one for each request
DPOP_SKEW_SECONDS = 5  # how far ahead its clock may run
DPOP_NONCE_SECONDS = 60  # after which there is a new one; the one before it is good as long again
DPOP_PROOFS_REMEMBERED = 200_000  # at about 300 bytes each: some 1,600 a second; when full, each needs a new nonce
DPOP_PROOFS_OF_ONE = 100_000  # of those, of one user or workload: nobody takes the room of all others
DPOP_JTI_MAX = 256  # characters

# --- services that are guarded --------------------------------------------------------------------------------------
GUARDED_CONTENT_MAX_BYTES = 1024 * 1024  # of a request that is compared with its token: it is read whole, and held
MCP_LISTING_MAX_BYTES = 4 * 1024 * 1024  # of an answer to tools/list, which is held to leave out what may not be called
GUARDED_FIELDS_MAX = 1_000  # of a query, a form or an object that is looked through for a parameter: about 1 ms
GUARDED_MEMBERS_MAX = 20_000  # of all lists and objects that are looked through for one parameter
GUARDED_NAME_MAX = 256  # characters of a name there that is not ASCII
NAMES_ALIKE_MAX = 16  # of one name, each of which must have the same value
TOKEN_USES_PER_REPORT = 200  # at some 60 us each to verify
USES_JUDGED_AT_ONCE = 20  # of a report, before others have a turn: about 2 ms
TOKEN_USES_BYTES_PER_REPORT = 192 * 1024  # of tokens: PUBLIC_REQUEST_MAX_BYTES has room for them
TOKEN_USES_HELD = 10_000  # by a service until its next report, at about 1 KiB each
TASK_USE_LATE_SECONDS = 10.0  # after the end of a task its use may still be told; services tell it at once
LATE_USE_RECORDS = 20  # of what was told so of one task: its services tell it together
USE_WRITE_SECONDS = 1.5  # that a service waits for its report to be on disk
SERVED_TARGET_MAX = 300  # characters of a request's path and its query's names, in records
SERVED_NAME_MAX = 64  # characters of one name there, of the method and of the action
SERVED_QUERY_NAMES = 20
USED_TASKS_KEPT = 10_000  # by a service: those whose first use it has reported
REFUSALS_HELD = 500  # by a service until its next report, at about 1 KiB each with a token; more are counted
REFUSAL_TARGETS_TOLD = 8  # different requests with one token that are told one by one; more are counted
REFUSED_STRANGERS_HELD = 50  # of those with tokens that may be good: the agent verifies each
REFUSALS_PER_REPORT = 100
REFUSALS_RECORDED = 60  # a minute, of those that one workload tells of: about 40 KiB; more are counted
REFUSALS_RECORDED_OF_TASK = 20  # a minute: one task does not hide the others
REFUSAL_KINDS_COUNTED = 20  # a minute, of one workload: resources and tasks; more are one
REFUSAL_CODES = 100  # different ones that services tell: more are `other`, in records and metrics
REFUSALS_SHOWN = 5  # the last of a task
REFUSED_TASKS_KEPT = 10_000  # of which is remembered what was refused, at about 2 KiB each
TOKEN_USE_LATE_SECONDS = 10.0  # after its end a use of a token may still be told: services tell each second
SINGLE_USES_REMEMBERED = 100_000  # of tokens that are good once, at about 150 bytes each
TOKEN_USE_CALLS_MAX = 1_000_000  # with one token, that are reported at once
USES_MAX = 1_000_000  # of an action that a task type limits

# --- task types and policies ----------------------------------------------------------------------------------------
TASK_TYPES = 1_000
TYPE_DIGEST_SHOWN = (
    16  # hex digits of a type's digest, in each record of a task: 64 bits tell an operator's files apart
)
KEPT_TYPES_MAX_BYTES = 16 * 1024 * 1024  # of the last good set in the database; types are some KiB each
GRANTS_PER_TASK = 50
ACTIONS_PER_GRANT = 50
PARAMS_PER_TASK = 50
PARAM_MAX_BYTES = 4_096
LONG_MAX = 10**18 - 1  # of a number that policies read: whole digits that 64 bits hold
PATTERN_TEXT_MAX = 100  # characters of a parameter that a pattern is matched against, unless it says otherwise
PATTERN_CHOICES_MAX = 2_000_000  # ways through a pattern: a text that none of them fits costs some 10 ms
CHOICES_PER_PARAM = 1_000  # values that a parameter may be one of
CASES_PER_TYPE = 1_000  # of `sojourn policy test`
CHANGES_SHOWN = 50  # by `sojourn policy explain`, of what would change an answer
CHANGES_FOUND = 3  # of each attribute: then it is left at that
VALUES_TRIED = 100  # of each attribute, to find them
SHADOW_DIFFERENCES = 1_000  # that are remembered: over that they are counted
POLICIES_PER_TYPE = 1_000  # to be asked for one action, about 2 ms
POLICY_MAX_BYTES = 8 * 1024  # of one policy: Cedar's parser takes stack for each operator, and has no limit of its own
POLICY_NESTED_MAX = 50  # brackets in one policy; some hundreds overflow the parser's stack
ENTITIES_KEPT = 32  # of each task type, at about 1 KiB: those that are decided again together are much alike
ALLOWED_KEPT = 256  # questions of each task type to which policy said yes: token after token asks the same
CLAIMS_PER_TYPE = 50  # of the person whom a task is for, as parameters
PERSON_CHOICES = 100  # issuers, groups, and ways to log in that a type names: those of a company's departments
PERSON_TASKS = 1_000  # live ones of one type for one person: as many as a batch has that somebody starts by hand
LOGIN_AGE_MAX_SECONDS = 30 * 86_400  # the longest session that identity providers commonly keep

# --- facts ----------------------------------------------------------------------------------------------------------
FACTS_PER_TYPE = 50
FACTS = 10_000  # at about 1 KiB each
FACTS_OF_OTHERS = 9_000  # than operators, who can say something whatever workloads do
FACTS_PER_WORKLOAD = 1_000  # that it publishes
FACTS_OTHERWISE_TOLD = 20  # to whom says something, of those that count before it: a few lines of a terminal
FACTS_PER_ISSUER = 5_000  # of signed events: an identity provider tells of many
FACT_VALUE_MAX_BYTES = 4_096  # as of a parameter
FACT_SOURCE_MAX_BYTES = 2_048
FACT_MAX_AGE_SECONDS = 30 * 86_400
REDECIDED_AT_ONCE = 100  # tasks, before others have a turn: about 10 ms

# --- delegation -----------------------------------------------------------------------------------------------------
DELEGATION_DEPTH = 8  # hand-overs from a task that was begun to the last; each makes tokens longer
DELEGATION_CHILDREN = 100  # of one task
DELEGATION_TICKET_SECONDS = 60.0  # to carry a ticket to another process; over that it is lost, or stolen
DELEGATION_TICKETS = 20_000  # outstanding, of one user's tasks half of what others leave: as many as tasks may live

# --- approval -------------------------------------------------------------------------------------------------------
APPROVALS_PER_TASK = 5  # people who must agree
APPROVAL_WHEN_MAX = 4_096  # characters of the condition: it stands in each request, and people read it
APPROVAL_MAX_SECONDS = 86_400
APPROVALS_WAITING = 1_000  # tasks that wait, shared like them: more than people can look at
APPROVALS_WAITING_PER_UID = 100  # so that one user's requests do not bury the others'
NOTICES = (
    2_000  # about requests, to the configured notifier: twice as many as may wait, which are to be told of as over
)
NOTICES_PER_OWNER = 400  # of one user's requests, so that nobody's push out the others'
NOTICES_AT_ONCE = 4  # being delivered: where people are told, more would not be read sooner
NOTICE_MAX_BYTES = 64 * 1024  # over that parameters and grants are left out: `approval show` has them
NOTICE_DEADLINE_SECONDS = 10.0  # for one attempt
NOTICE_DEADLINE_MAX_SECONDS = 60.0
NOTICE_RETRY_SECONDS = 1.0  # after the first failure; each further pause is twice as long
NOTICE_RETRY_MAX_SECONDS = 300.0  # longer, and a request would be over before it is told of
NOTICE_FAILURES_LOGGED_PER_SECOND = 1
NOTICE_COMMAND_WORDS = 64
NOTICE_STDERR_MAX = 300  # characters of what a command that failed said, in the log and in status
NOTICE_TOKEN_MAX_BYTES = 8 * 1024
APPROVAL_PARAM_LISTED = 200  # characters of a parameter in a list; a single request is shown whole
TASK_WAIT_SECONDS = 30.0  # that a call waits for a pending task; then its caller calls again
REVIEWS_OWED = 1_000  # one of each task type
REVIEW_FINDING_MAX = 2_000  # characters
OWNER_MAX = 255  # characters of an owner or a sponsor, as of an OpenID subject
REVIEW_EVERY_MIN_SECONDS, REVIEW_EVERY_MAX_SECONDS = 1, 3_660 * 86_400  # ten years: nobody reviews what is rarer
BREAK_GLASS_MAX_SECONDS = 3_600

# --- live tasks and the feed ----------------------------------------------------------------------------------------
IDEMPOTENCY_KEY_MAX = 200  # characters
LIVE_TASKS = 100_000  # of one user or SPIFFE ID half of what others leave (shares.py): two do not take all there is.
# Each is about half a KiB, and a bare exchange's lives as long as its token: 1,666 a second for 60 s.
LIVE_TASKS_PER_UID = 50_000  # 833 a second, if tokens live for 60 s
LIVE_TASKS_PARAM_BYTES = 256 * 1024 * 1024  # in memory, of all: of one user half of what others leave
TASKS_ENDED_AT_ONCE = 25  # at about 0.1 ms each, before others are answered
REMOTE_TASKS_PER_ID = 25_000  # of one SPIFFE ID on other machines, which all replicas of a workload share
SVIDS_PER_TASK = 1_000  # that its tokens were given for and that have not ended: it ends if one is revoked
TASK_BLOCKS = 1_000  # kill switches that are off
PEOPLE_BLOCKED_BY_SIGNALS = 2_000  # beside those, by signed events: the list is written whole each time, in 400 KB
ENDED_TASKS_KEPT = 10_000  # in memory, for `task list --all` and to say why a token is dead
ENDED_TASKS_PARAM_BYTES = 32 * 1024 * 1024  # of these together
REATTACH_SECONDS = 10.0  # after a start of the agent: for holders to come back to their tasks
REATTACH_TRIED_SECONDS = 20.0  # by a holder whose agent has gone: it must stop and start before it can be found
PERSON_EXPIRES_TOLD_SECONDS = 60  # ahead: a front end has its person logged in again, or refreshed, in this time
ANCESTORS_WALKED = 64  # from a caller up to its task's holder
PEOPLE_NAMED_KEPT = 16  # of whom was asked last what they are called: a beginning asks several times of one
PERSON_HOLDERS_KEPT = 256  # processes of which is kept what they descend from, at about 500 bytes each
HEARTBEAT_SECONDS = 1.0
HEARTBEATS_MISSED = 3  # then a validator's knowledge is stale
FEEDS_PER_CALLER = 1_000  # of one user or SPIFFE ID: each takes a heartbeat a second, and one that is slow some 45 KiB
SNAPSHOT_TASKS_AT_ONCE = 250  # that are put into one before others have a turn: about a millisecond
SNAPSHOT_TASKS_PER_MESSAGE = 25_000  # about 1 MiB of the 4 that clients take
SNAPSHOTS_HELD_BYTES = 32 * 1024 * 1024  # of one caller, that it does not take: some eight of the largest
FEED_DELTAS_KEPT = 64  # messages that are ready for the next validator; all are told within milliseconds
FEED_CHANGES_HELD = 1_024  # for a slow validator; over that it starts anew from a snapshot
WATCHED_AUDIENCES = 100
WATCHED_AUDIENCES_BYTES = 16 * 1024  # of all together

# --- signed events --------------------------------------------------------------------------------------------------
SIGNAL_ISSUERS = 50
SIGNAL_KEYS = 100  # of one issuer
SIGNAL_AGE_MAX_SECONDS = 86_400  # of an event that may still be handed in: so long its jti is remembered
SIGNALS_REMEMBERED = 20_000  # of one issuer: 30 a second at 10 minutes; when full, events are refused, none forgotten
SIGNALS_PER_UID_PER_SECOND = 200  # handed in: checking a signature takes a tenth of a millisecond and more
SIGNAL_JTI_MAX = 256  # characters
SIGNAL_JTI_TOLD_MAX = 2_048  # of one that is refused for its length, and told so: 200 KiB for 100 of them
SIGNAL_TEXT_MAX = 200  # characters of a value that becomes a fact
EVENTS_PER_SIGNAL = 20  # transmitters send one
SIGNAL_POLL_MAX_SECONDS = 3_600  # between two polls
SIGNAL_POLL_PAUSE_SECONDS = 60.0  # at most, after polls that failed
SIGNAL_STREAM_LOOK_SECONDS = 300.0  # between two looks whether the transmitter has paused the agent's stream
SIGNAL_STREAMS_READ = 100  # of those that a transmitter lists
SIGNALS_PER_POLL = 100  # of a KiB each: an answer has 256 KiB at most
SIGNAL_POLLS_IN_A_ROW = 5  # without a pause, while there is more: 100 events a second at 5 s
SIGNAL_POLL_TRIES = 20  # of an event that cannot be taken, before others may go ahead of it for good
SIGNAL_RETRY_SECONDS = 5  # for a transmitter to come again after, when the agent could not take an event

# --- people ---------------------------------------------------------------------------------------------------------
PEOPLE_ISSUERS = 16  # whose tokens are taken: a company's own, and its partners'
PERSON_PRESENTERS = 100  # tables of one issuer
PERSON_AUDIENCES = 100  # of one table, of each kind
PERSON_CLAIMS = 20  # of one issuer that are read for policies
PERSON_CLAIM_MAX_BYTES = 1_024  # of the value of one
PERSON_GROUPS = 500  # of one person: issuers stop at 200 (Entra), and more do not fit into a header
PERSON_TEXT_MAX_BYTES = 255  # of `sid`, `acr`, a method or a group; OpenID Connect Core 2 has it of `sub`
PERSON_TOLD_MAX_BYTES = 4_096  # of their claims in a token for a service: servers take lines of 8 KiB in a header
PERSON_SCOPES = 200  # of one issuer that are mapped to actions, and that one token has
PERSON_SCOPE_ACTIONS = 200  # that one of them lets be done
PERSON_PREFIX_MAX_BYTES = 64  # of an issuer's, before the subjects of its people
PERSON_METHODS = 20  # in `amr`
PERSON_TOKEN_MAX_SECONDS = 86_400  # the most that `longest` and `fresh` may be: a working day
PERSON_RECHECKS_AT_ONCE = 16  # questions to one issuer whether tokens are active
PERSON_TOKENS_UNUSED = 200  # of one workload, that were verified just now and by which nothing has begun
PERSON_TOKEN_UNUSED_SECONDS = 30.0  # after which such a one is forgotten: nothing takes so long to begin
OPAQUE_TOKEN_MIN_BYTES = 22  # of an access token: 128 bits as base64url, so that its digest in records tells nothing
OPAQUE_TOKEN_MAX_BYTES = 4_096
OPAQUE_TOKENS_PER_SECOND = 20  # of one workload: the issuer is asked about each, and anybody can make one up
PERSON_RECHECK_ENDS_AFTER = 10  # times the grace without an answer: the task ends
ID_JAG_MAX_SECONDS = 300  # an assertion is for one request at once, and its `jti` is remembered so long
PUBLISHED_KEYS = 100  # of one issuer
PUBLISHED_KEYS_SECONDS = 300.0  # that fetched keys are in force before they are fetched anew behind
PUBLISHED_KEYS_KEPT_SECONDS = 3_600.0  # at most, while they cannot be: a key that was taken away is forgotten by then
PUBLISHED_KEYS_ANEW_SECONDS = 30.0  # between two fetches for a key ID that is not known: anybody can make one up
PUBLISHED_KEYS_PAUSE_SECONDS = 2.0  # after a fetch that failed, while there are no keys
LOGOUT_TOKEN_AGE_SECONDS = 600  # of `iat`: an issuer sends one as soon as somebody logs out, and once
LOGOUT_TOKENS_REMEMBERED = 10_000  # by `jti`: one that is forgotten, and comes again, ends nothing more
LOGOUT_CONNECTIONS = 200  # of issuers that say who has logged out: each has one or two
LOGOUT_CONNECTIONS_PER_ADDRESS = 50
LOGOUT_CONNECTIONS_PER_SECOND = 50  # new ones of one address: a handshake takes a millisecond
LOGOUT_REQUESTS_PER_SECOND = 200  # of one address: checking a signature takes a tenth of a millisecond and more
LOGOUT_DESCRIPTORS_SHARE = 0.02  # of the descriptors; a connection takes one
PENDING_DELIVERIES_OF_ISSUER = 100  # logouts, or events, of keys that are not known: a rotation meets a few
PENDING_DELIVERIES = 1_000  # of all issuers: 4 MB
PENDING_DELIVERY_MAX_BYTES = 4_096  # of one: issuers write 1 to 2 KiB
PENDING_DELIVERY_SECONDS = 600.0  # that one is kept while the keys are not to be had: so old a logout token may be
PENDING_DELIVERY_PAUSE_SECONDS = 2.0  # between two looks whether they are
ENDED_SESSIONS = 50_000  # that are remembered, in 15 MB: 14 logouts a second where tokens are good for an hour
ENDED_SESSIONS_DROPPED_SHARE = 0.01  # of those, once there are too many: so that not each further one looks for one
ENDED_SESSIONS_EVENTS = 2_000  # records of the audit that wait while the disk fails: the newest
ENDED_SESSIONS_KEPT_SECONDS = 3_600  # after the last token of one has ended: a clock may be set back by less unnoticed
ENDED_SESSIONS_LOOK_SECONDS = 60.0  # between two looks for those that can be forgotten

# --- storage --------------------------------------------------------------------------------------------------------
WRITES_PER_COMMIT = 256
WRITES_WAITING = 10_000
STORE_LOOK_SECONDS = 5.0  # between looks whether the store takes writes: so soon a disk that was mended is noticed
STORE_IDLE_SECONDS = 30.0  # without a write, after which a small one is made to see whether the disk takes it
STORE_STUCK_SECONDS = 10.0  # that a commit may take before the store counts as one that refuses
AUDIT_LISTED = 10_000
AUDIT_SCANNED = 5_000  # records that one read looks at: some 3.5 MB, in about 10 ms
AUDIT_BLOCKS = 512  # of the journal's index that one read goes through, a million records: some 5 ms
AUDIT_PAGE = 200  # records that one read finds
AUDIT_PAGE_BYTES = 128 * 1024  # of one message of them, which is made in about 10 ms
AUDIT_FOLLOWERS = 8  # of one operator's uid
AUDIT_FOLLOW_SECONDS = 0.5  # between two looks for what is new
AUDIT_EVENTS_WANTED = 32
AUDIT_WANTED_TEXT = 128  # characters of an event, a task's ID or a type that is searched for
AUDIT_WANTED_ID = 2_048  # characters of a SPIFFE ID, or of who else it was
AUDIT_SEARCHED = 100  # records of a page that is searched for
AUDIT_MAX_BYTES = 8 * 1024**3  # of the database: a year of some 30,000 records a day, at about 700 bytes each
AUDIT_MAX_BYTES_LEAST = 16 * 1024 * 1024  # that an operator may set
AUDIT_DISK_SHARE = 0.5  # of the data folder's file system, if that is less
AUDIT_KEPT_LEAST = 1_000  # records that stay, whatever else takes the room
AUDIT_LOOK_SECONDS = 30.0  # in which one workload adds some 60 MiB
AUDIT_PRUNED_SHARE = 0.05  # of the most, by which it is less afterwards
AUDIT_PRUNED_AT_ONCE = 1_000  # records in one write, which others wait for: about 20 ms
AUDIT_PRUNE_PAUSE_SECONDS = 0.05  # between two such writes
AUDITED_TEXT = 200  # characters of a caller's text that go into a record
AUDITED_AUDIENCES = 5  # of one JWT-SVID, in its record

# --- what a task sends, by the SDK's clients and through the egress proxy -------------------------------------------
REQUEST_TARGET_MAX_BYTES = 16 * 1024  # path and query; servers take 8 KiB
TOKENS_KEPT = 256  # of one task: resources by actions; over that the oldest is asked for again
TOKEN_RENEWED_SECONDS = 5.0  # before its end, so that a request under way does not outlive its token
NONCES_KEPT = 64  # of services, one each
ONE_REQUEST_MAX_BYTES = 1024 * 1024  # of content that a token is for: it is read whole before anything is sent
PROXY_CONNECTIONS = 256  # of the command: browsers have six to a host; and as many that have not said the secret yet
PROXY_HEAD_MAX_BYTES = 32 * 1024  # of a request or an answer: servers send 8 to 16 KiB
PROXY_CHUNK_BYTES = 64 * 1024  # of content that is on its way, in each direction
PROXY_REPLAY_MAX_BYTES = 1024 * 1024  # of content that is kept to be sent again with a newer token or a nonce
PROXY_HEAD_SECONDS = 10.0  # for a request's head to arrive whole, and for a TLS handshake
PROXY_CONTENT_SECONDS = 60.0  # that content may stand still, either way
PROXY_IDLE_SECONDS = 60.0  # that a connection may wait for its next request
PROXY_CONNECT_SECONDS = 10.0  # for a service to accept a connection, its TLS included
PROXY_ANSWER_SECONDS = 600.0  # for an answer to begin, and between its parts: models and event streams are slow
PROXY_PASSES = 32  # origins that a proxy lets through without a token: a model's API, and a few more
PROXY_HOSTS = 64  # certificates that are kept: as many as a task has grants, and some

# --- local endpoints that SDKs of clouds read ------------------------------------------------------------------------
LOCAL_CONNECTIONS = 256  # as of the egress proxy: each thread of a program may have one
LOCAL_CONTENT_MAX_BYTES = 64 * 1024  # of a request for credentials: a token exchange is a form of a few hundred bytes
# That an SDK is to believe in what it is given. They renew it four minutes and more before its end, so they ask before
# each request, which takes a millisecond, and learn at once that the task is over.
LOCAL_CREDENTIAL_SECONDS = 200.0
LOCAL_SUBJECT_TOKENS = 64  # that were given for an exchange which has not come yet: one a thread that renews
LOCAL_FILE_LEAST_SECONDS = 1.0  # between two writings of a file with a token
LOCAL_FILE_RETRY_SECONDS = 2.0  # after which one that could not be renewed is tried again

# --- external authorization for Envoy: a request comes with the certificate of its connection -----------------------
CERTIFICATE_MAX_BYTES = 32_768  # of PEM with percent escapes; an X.509-SVID has about 1,500
CERTIFICATES_REMEMBERED = 256  # as parsed; one more costs 30 microseconds a request
ENVOY_ROUTES_KEPT = 1_024  # of all Envoys; one more is read anew at each request

# --- following the bundles of other trust domains -------------------------------------------------------------------
FEDERATION_REFRESH_SECONDS = 300  # of a bundle that gives no hint (SPIFFE Federation 4.1)
FEDERATION_REFRESH_MIN_SECONDS = 10  # whatever the hint says: no partner has us ask more often
FEDERATION_REFRESH_MAX_SECONDS = 86_400  # nor less: a key that was withdrawn is trusted so long at most
FEDERATION_RETRY_SECONDS = 5.0  # after the first failure; then twice as long each time, up to the partner's interval
FEDERATION_JITTER_SHARE = 0.2  # by which a pause is shorter, so that a fleet does not ask as one, and none is late
FEDERATION_DEADLINE_SECONDS = 10.0  # of one fetch, its name's resolution and TLS included
FEDERATION_CONNECT_SECONDS = 3.0  # for each address of an endpoint to accept, so that the next one has its turn
REFRESH_HINT_SECONDS = 300  # that a bundle document tells others to fetch it anew after
FEDERATION_BUNDLE_MAX_BYTES = 256 * 1024  # some 150 certificates; bundles have a few
FEDERATION_FETCHES_AT_ONCE = 16  # on their own; partners that are dead hold no more than these
FEDERATION_ASKED_AT_ONCE = 16  # that an operator waits for, beside those
FEDERATION_LOOKUPS_AT_ONCE = 64  # of names, each in a thread: a resolver that hangs cannot be interrupted
FEDERATION_CA_SECONDS = 300.0  # after which the authorities of web certificates are read again
FEDERATION_OVERTAKEN_MAX = 3  # fetches that are done again since what vouches for the endpoint changed meanwhile

# --- providers outside ----------------------------------------------------------------------------------------------
PROVIDERS = 64
PROVIDER_DEADLINE_SECONDS = 10.0  # of one exchange, with what is tried again: a caller's patience
PROVIDER_DEADLINE_MAX_SECONDS = 60.0
PROVIDER_ANSWER_MAX_BYTES = 256 * 1024  # a token with its metadata is a few KiB; AWS's policies make it no larger
PROVIDER_TOKEN_MAX_BYTES = 64 * 1024  # of one; AWS's largest session token and an Entra token with groups are below 16
PROVIDER_ROLES_KEPT = (
    1_024  # of which a provider remembers that what they give can be taken back; one more costs a call
)
PROVIDER_STRANDED = 1_024  # tasks whose exchange broke off between two calls, of which a token is known
PROVIDER_CALLS_AT_ONCE = 32  # of one provider: one that is slow holds no more than these
PROVIDER_CALLS_PER_OWNER = 16  # of those, of one user or workload: the others find places
PROVIDER_CALLS_WAITING = 1_000  # of one user or workload for one provider, behind those: each has a deadline
PROVIDER_TRIES = 3  # of one exchange, within its deadline
PROVIDER_RETRY_SECONDS = 0.1  # before the second try, twice that before the third; less by chance, so that many differ
PROVIDER_FAILURES = 5  # in a row, after which a provider is asked no more for a while
PROVIDER_PAUSE_SECONDS = 1.0  # for the first time, twice as long each time after
PROVIDER_PAUSE_MAX_SECONDS = 60.0  # so long a provider that is back may go unnoticed
CREDENTIAL_REFRESHED_SHARE = 0.75  # of a credential's life, after which another one is fetched behind it
CREDENTIAL_LEFT_SECONDS = 5.0  # or a tenth of its life if that is less: with so little left, whoever asks gets the next
PROVIDER_ASSERTION_SECONDS = 60  # the life of a JWT-SVID that a provider is shown
PROVIDER_CREDENTIALS = 20_000  # not gone, of all tasks
PROVIDER_CREDENTIALS_PER_ID = 10_000  # of one workload's tasks, so that it does not take the room of all others
PROVIDER_CREDENTIALS_PER_TASK = 64
PROVIDER_HANDLE_MAX_BYTES = 32 * 1024  # by which a credential is taken back: a refresh token, at most
PROVIDER_PUBLIC_MAX_BYTES = 4 * 1024  # that is told and recorded of a credential
PROVIDER_RECALLS_AT_ONCE = 16  # of one provider; others have their own
PROVIDER_RECALL_PAUSE_SECONDS = 1.0  # before one is tried again, doubled each time
PROVIDER_RECALL_PAUSE_MAX_SECONDS = 60.0  # a provider that comes back is asked by then
PROVIDER_RECALL_FAILURES = 3  # in a row: then a provider is tried with one recall at a time
PROVIDER_CHECK_STEPS = 32  # of one check: the longest of ours has 8
PROVIDER_CHECKS_PER_MINUTE = 30  # of one provider: an outside system counts failed sign-ins
PROVIDER_CHECK_ENDING_SECONDS = 5.0  # that a step which hung has to take back what it obtained
PROVIDER_CONNECT_SECONDS = 5.0  # for a connection, its address included; and as long for its TLS
PROVIDER_IDLE_CONNECTIONS = 8  # kept for the next call, of one provider
PROVIDER_IDLE_SECONDS = 20.0  # so long; what servers and balancers in between let go of sooner is seen
PROVIDER_HEADERS = 100  # of an answer
PROVIDER_HEADERS_MAX_BYTES = 32 * 1024
PROVIDER_READ_BYTES = 4_096  # at once: in one-byte chunks that is some 20 ms of parsing, while nothing else goes on
PROVIDER_WIRE_MAX_BYTES = 2 * PROVIDER_ANSWER_MAX_BYTES  # of one answer, with its frames and interim answers
PROVIDER_URL_MAX_BYTES = 2_048
PROVIDER_LOOKUPS_AT_ONCE = 4  # of one provider: a thread each
PROVIDER_ADDRESSES_TRIED = 4  # of one name, of those that may be connected to
PROVIDER_CHECK_TEXT = 1_000  # characters of what a step tells
PROVIDER_TOKEN_MAX_SECONDS = 86_400  # a credential that is good for longer is a standing one
PROVIDER_RETRY_AFTER_MAX_SECONDS = 3_600.0  # that a provider may ask to be left alone
PROVIDER_METADATA_SECONDS = 3_600.0  # that metadata are kept which do not say for how long
PROVIDER_METADATA_MIN_SECONDS = 60.0
PROVIDER_METADATA_MAX_SECONDS = 86_400.0
PROVIDER_METADATA_KEPT_SECONDS = 86_400.0  # at most, while they cannot be fetched anew
PROVIDER_SCOPES = 100  # that a task type asks for, of one resource

# --- a SPIRE server above this node ---
UPSTREAM_CALL_SECONDS = 30.0  # of one call, as spire-agent has it
UPSTREAM_MESSAGE_MAX_BYTES = 64 << 20  # a page of entries, or a batch of SVIDs: of 500 with what each may have at most
UPSTREAM_BATCH = 500  # X.509-SVIDs that are asked for at once: a server's rate limit refuses more
UPSTREAM_ENTRIES = 100_000  # that a server may give this node: what it is told must fit into memory
UPSTREAM_FILE_MAX_BYTES = 1 << 20  # of a bundle, a certificate, a key or a token
UPSTREAM_ENTRIES_IN_A_STEP = 200  # of the loop, which that keeps for some 10 ms
UPSTREAM_AWAY_TOLD_SECONDS = 30.0  # for which no server has answered: a restart of one takes less
UPSTREAM_BEHIND_SECONDS = 30.0  # and no fewer than so many polls, without a sync that succeeds, until that is told:
UPSTREAM_BEHIND_POLLS = 6
UPSTREAM_SERVERS = 16  # names of servers that a node may be given
UPSTREAM_PREFETCH = 500  # entries whose SVIDs are signed before anybody asks: what one call has signed
UPSTREAM_PREFETCH_MAX = 10_000  # each is signed twice in its life, asked for or not
UPSTREAM_CHALLENGES = 8  # that a server may ask before it has attested a node
UPSTREAM_START_SECONDS = 10.0  # that a start waits for a server that nothing is kept of; then it goes on without
UPSTREAM_LEAVE_SECONDS = 15.0  # that a stop waits for an SVID of the node's own: a service manager kills after 20
UPSTREAM_CLOCK_BEHIND_SECONDS = 86_400.0  # of the server's, by which this machine's clock may be for a node to join
UPSTREAM_JOIN_WRITE_SECONDS = 30.0  # for which `agent join` tries to write what the server gives once
UPSTREAM_WRITE_AGAIN_SECONDS = 0.5  # between two tries of that
UPSTREAM_TWIN_SECONDS = 900.0  # after attesting: who is not active any more by then has a twin
UPSTREAM_TWIN_MAX_SECONDS = 300.0  # between two attestations then: less than the time that tells twins
UPSTREAM_POLL_MAX_SECONDS = 30.0  # between two syncs that fail: a server that is back is seen soon
UPSTREAM_POLL_JITTER_SHARE = 0.1  # by which a pause is longer or shorter
UPSTREAM_SYNC_AGAIN_SECONDS = 1.0  # between two syncs that are asked for out of turn: a server's own cache is no faster
UPSTREAM_LOOKUP_SECONDS = 5.0  # for the addresses of a name: others may have some
UPSTREAM_MOVE_SECONDS = 2.0  # at most, before the next server is asked in the place of one that does not answer
UPSTREAM_RETRY_SECONDS = 1.0  # after joining or renewing has failed first; each further pause is twice as long
UPSTREAM_RETRY_MAX_SECONDS = 30.0  # so that a server that is back is soon asked again
UPSTREAM_REFUSED_SECONDS = 60.0  # until a server that has said no is asked again: somebody has to do something first
UPSTREAM_BANNED_SECONDS = 60.0  # the same for a node that is banned
UPSTREAM_FEDERATED_AT_ONCE = 10  # bundles of other trust domains that are asked for at once
UPSTREAM_LEFT_OUT_TOLD = 10  # entries, or keys, that one line of the log names
UPSTREAM_GATHER_SECONDS = 0.003  # that a signature waits for others to go with it
UPSTREAM_SIGN_SECONDS = 10.0  # of a call for signatures: whoever waits for one has given up by then
UPSTREAM_SIGN_WAITING = 10_000  # signatures that wait for their call
UPSTREAM_KEPT_WAIT_SECONDS = 2.0  # for an SVID in the place of one of an earlier run that should be renewed
UPSTREAM_KEEP_SECONDS = 1.0  # until a change is on disk, so that many are written at once
UPSTREAM_KEPT_SVIDS = 10_000  # of workloads that are kept over restarts, at about 1.5 KiB each

# --- a server, and the nodes below it ---
NODE_CONNECTIONS = 12_000  # of nodes: each has one, and another while it renews
NODE_CONNECTIONS_PER_ID = 8  # of one node
NODE_DESCRIPTORS_SHARE = 0.6  # of the descriptors: nobody else connects to a server; a connection takes one
NODE_STREAMS_PER_ID = 64  # calls under way of one node, or of those who show no SVID from one network
NODE_REQUEST_MAX_BYTES = 4 << 20  # a batch of certificate requests with the largest keys
NODE_BATCH = 500  # X.509-SVIDs in one call, as SPIRE's nodes ask for them
NODE_ENTRIES_PAGE = 500  # entries, or their revisions, in one message: SPIRE's page
NODE_SIGNATURES_PER_SECOND = 500  # for one node in the long run, X.509-SVIDs and JWT-SVIDs: a sixth of a core
NODE_SIGNATURES_BURST = 2_000  # a node that begins has many entries
NODE_SIGNATURES_WAIT_SECONDS = 5.0  # for one's turn, before a node is told to come again: it waits for longer than that
NODE_SIGNED_IN_A_STEP = 10  # X.509-SVIDs, before others have a turn: about 5 ms
NODE_ENTRIES_IN_A_STEP = 100  # entries that are made messages of, before others have a turn: about 5 ms
NODES_ATTESTED_PER_SECOND = 20  # of one network, behind whose address there may be a whole fleet
NODES_ATTESTED_BURST = 200
NODES_ATTESTING = 64  # at once, of one network
NODE_CHANGES_PER_SECOND = 1  # of what is on disk of one node: renewals, and what it says of itself
NODE_CHANGES_BURST = 20
NODE_CHALLENGE_SECONDS = 10.0  # for the answer to a challenge
NODE_VERSION_MAX = 255  # characters of what a node says of its own release, as SPIRE has it
NODE_NAME_MAX = 64  # characters of a name that an operator gives a node
NODES_PER_PAGE = 500  # of a list, where nobody asks for fewer
JOIN_TOKENS = 10_000  # that are not used yet and have not ended
JOIN_TOKEN_MAX_BYTES = 255  # of one that an operator has made up; it stands in the node's ID
JOIN_TOKEN_MAX_SECONDS = 7 * 86_400
BOUND_KEY_MESSAGE_MAX_BYTES = 4_096  # of what a node says of its bound key: a tenth of that
X509POP_PAYLOAD_MAX_BYTES = 256 * 1024  # five certificates with the largest keys are a tenth of that
X509POP_INTERMEDIATES = 4  # as SPIRE has it
X509POP_RSA_MAX_BITS = 8_192  # likewise: checking by a larger one costs too much
K8S_PSAT_PAYLOAD_MAX_BYTES = 32 * 1024  # a token has one or two KiB
K8S_PSAT_SECONDS = 10.0  # for all that is asked about one token: a spire-agent waits for 30
K8S_CLUSTERS = 100  # whose tokens one server takes
K8S_ALLOWED = 100  # service accounts, audiences or keys of labels, each of one cluster
K8S_NAME_MAX = 253  # characters of a name: RFC 1123, as Kubernetes has it
K8S_FILE_MAX_BYTES = 1024 * 1024  # of a kubeconfig, and of what it names
K8S_ANSWER_MAX_BYTES = 4 << 20  # an object of etcd has 1.5 MiB at most
K8S_HEADERS = 100
K8S_HEADERS_MAX_BYTES = 64 * 1024
K8S_READ_BYTES = 64 * 1024  # at once
K8S_WIRE_MAX_BYTES = K8S_ANSWER_MAX_BYTES + 1024 * 1024  # of one answer with what is around its body
K8S_CALLS_AT_ONCE = 16  # to one cluster's API, of however many nodes that begin
K8S_IDLE_CONNECTIONS = 2
K8S_IDLE_SECONDS = 30.0
K8S_CONNECT_SECONDS = 5.0
