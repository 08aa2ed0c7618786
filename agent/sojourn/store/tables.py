"""The tables. What an operator filters by is a column; the rest of a thing is one JSON document."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

SCHEMA = "0009"  # the newest migration in store/migrations/versions; a test compares
# The oldest schema whose releases can work on what the newest migration leaves: it stays as it is while migrations only
# add tables, and columns that may be left out, or take away indexes. One that takes away or changes what else is there
# sets it to itself.
READABLE_BY = "0001"

metadata = MetaData()

entries = Table(
    "entries",
    metadata,
    Column("id", String(255), primary_key=True),
    # SHA-256 over SPIFFE ID, parent and selectors: two entries that differ in nothing else are one too many.
    Column("identity_digest", String(64), nullable=False, unique=True),
    Column("document", Text, nullable=False),
)

bundles = Table(
    "bundles",
    metadata,
    Column("trust_domain", String(255), primary_key=True),
    Column("document", Text, nullable=False),  # the SPIFFE bundle document, JSON
)

relationships = Table(
    "relationships",
    metadata,
    Column("trust_domain", String(255), primary_key=True),
    Column("document", Text, nullable=False),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("boot_id", String(64), nullable=False),
    Column("document", Text, nullable=False),
    Index("tasks_by_state", "state"),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("event", String(64), nullable=False),
    Column("fields", Text, nullable=False),
    Column("digest", String(64), nullable=False),
)

# What records are searched by, in blocks of as many numbers as BLOCK of store/audit_index.py says. In the order of
# blocks: what is added lies at the end, where a term's place among all others would be another page for each record.
audit_blocks = Table(
    "audit_blocks",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("first_ms", BigInteger, nullable=False),  # the earliest time of its records, and the latest
    Column("last_ms", BigInteger, nullable=False),
)

audit_terms = Table(
    "audit_terms",
    metadata,
    Column("block", BigInteger, primary_key=True, autoincrement=False),
    Column("term", BigInteger, primary_key=True, autoincrement=False),  # a digest of what is searched for
    Column("places", LargeBinary, nullable=False),  # of the records of the block that have it
    sqlite_with_rowid=False,
)

audit_logs = Table(
    "audit_logs",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),  # the highest is the one that is signed now
    Column("origin", String(2048), nullable=False),
    Column("first_seq", BigInteger, nullable=False),  # of the record that is its first leaf
    Column("size", BigInteger, nullable=False),  # leaves that its last checkpoint has
    Column("checkpoint", Text, nullable=False),  # the last one, a signed note; empty: there is none yet
    Column("document", Text, nullable=False),
)

audit_tiles = Table(
    "audit_tiles",
    metadata,
    Column("log", Integer, primary_key=True, autoincrement=False),
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # within its level
    Column("hashes", LargeBinary, nullable=False),
)

audit_rotations = Table(
    "audit_rotations",
    metadata,
    Column("log", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("proof", Text, nullable=False),  # of the record of a rotation, with a checkpoint that both keys signed
)

policy_sets = Table(
    "policy_sets",
    metadata,
    Column("digest", String(64), primary_key=True),  # as records have it in `policy_set`
    Column("from_seq", BigInteger, nullable=False),  # records that name it are not before this
    Column("until_seq", BigInteger, nullable=False),  # nor behind this; 0: it is in force
    Column("files", Text, nullable=False),  # JSON: the digest of each file's text by the file's name
)

policy_texts = Table(
    "policy_texts",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256, lower-case hex
    Column("text", Text, nullable=False),
)

audit_sinks = Table(
    "audit_sinks",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False),  # the last record that it has taken, or does not want
    Column("document", Text, nullable=False),
)

usage_keys = Table(
    "usage_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("type", String(64), nullable=False),
    Column("digest", String(16), nullable=False),  # the first digits of the type's
    Column("workload", String(2048), nullable=False),
    Column("resource", String(2048), nullable=False),  # empty, as is the action: of tasks as a whole
    Column("action", String(255), nullable=False),
    UniqueConstraint("type", "digest", "workload", "resource", "action", name="usage_keys_by_name"),
)

usage_types = Table(
    "usage_types",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),  # since the epoch, UTC
    Column("key", Integer, primary_key=True, autoincrement=False),
    Column("document", Text, nullable=False),
)

usage_actions = Table(
    "usage_actions",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("key", Integer, primary_key=True, autoincrement=False),
    Column("granted", BigInteger, nullable=False),
    Column("taken", BigInteger, nullable=False),
    Column("called", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("unused_tokens", BigInteger, nullable=False),
    Column("denied", BigInteger, nullable=False),
    Column("most", BigInteger, nullable=False),
    Column("first_ms", BigInteger, nullable=False),  # 0: never
    Column("last_ms", BigInteger, nullable=False),
)

usage_entries = Table(
    "usage_entries",
    metadata,
    Column("entry_id", String(255), primary_key=True),
    Column("number", BigInteger, nullable=False),  # SVIDs that were issued
    Column("last_ms", BigInteger, nullable=False),
)

review_items = Table(
    "review_items",
    metadata,
    Column("item", String(2200), primary_key=True),  # KIND:NAME
    Column("document", Text, nullable=False),
)

review_shown = Table(
    "review_shown",
    metadata,
    Column("item", String(2200), primary_key=True),
    Column("digest", String(64), primary_key=True),  # SHA-256 of the evidence, lower-case hex
    Column("shown_ms", BigInteger, nullable=False),
    Column("decided_ms", BigInteger, nullable=False),  # when it was decided by it; 0: it was not
    Column("evidence", Text, nullable=False),  # canonical JSON
    Index("review_shown_by_time", "shown_ms"),
)

revocations = Table(
    "revocations",
    metadata,
    Column("id", String(255), primary_key=True),  # KIND:ID, such as x509:SERIAL
    Column("expires_at", BigInteger, nullable=False),  # of the SVID
    Column("document", Text, nullable=False),
)

revoked_identities = Table(
    "revoked_identities",
    metadata,
    Column("kind", String(16), primary_key=True),  # entry_id or spiffe_id
    Column("name", String(2048), primary_key=True),
    Column("document", Text, nullable=False),
)

signals = Table(
    "signals",
    metadata,
    Column("id", String(64), primary_key=True),  # digest of issuer and jti
    Column("issuer", String(2048), nullable=False),
    Column("iat_ms", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),  # of all claims
    Column("done", Boolean, nullable=False),  # what it says was published
    Index("signals_by_age", "issuer", "iat_ms"),
)

facts = Table(
    "facts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("subject", String(2048), primary_key=True),  # empty, a SPIFFE ID, or a task's ID
    Column("source", String(2048), primary_key=True),
    Column("boot_id", String(64), nullable=False),  # of the boot clock that its document counts by
    Column("document", Text, nullable=False),
)

used_tokens = Table(
    "used_tokens",
    metadata,
    Column("digest", String(64), primary_key=True),  # of kind, issuer, audience and jti
    Column("expires_at", BigInteger, nullable=False),
    Index("used_tokens_by_end", "expires_at"),
)

ended_sessions = Table(
    "ended_sessions",
    metadata,
    Column("digest", String(64), primary_key=True),  # of issuer and session or person, under a key that is not here
    Column("ended_at", BigInteger, nullable=False),  # seconds since the epoch
    Column("until", BigInteger, nullable=False),  # when the last token of it ends
)

external_credentials = Table(
    "external_credentials",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("task_id", String(64), nullable=False),
    Column("provider", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("expires_at", BigInteger, nullable=False),  # at the latest, seconds since the epoch
    Column("document", Text, nullable=False),  # its handle is in there, sealed
    Index("external_credentials_by_task", "task_id"),
)

approval_notices = Table(
    "approval_notices",
    metadata,
    Column("id", String(64), primary_key=True),  # of the request
    Column("document", Text, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", String(2048), primary_key=True),  # the node's SPIFFE ID
    Column("attestor", String(64), nullable=False),
    Column("banned", Boolean, nullable=False),
    Column("document", Text, nullable=False),
)

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256, lower-case hex: whoever reads the database joins by none
    Column("expires_at", BigInteger, nullable=False),
    Column("name", String(64), nullable=False),  # what the node is called then; empty: nothing
)

settings = Table(
    "settings",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)


def create(connection: Connection) -> None:
    """Make the tables of a new database, as all migrations together would; a test compares."""
    # First, as there: a file whose beginning is damaged is seen to be, before anything is written to it.
    connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    metadata.create_all(connection)
    connection.execute(text("INSERT INTO alembic_version VALUES (:schema)"), {"schema": SCHEMA})
