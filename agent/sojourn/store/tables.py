"""The tables. What an operator filters by is a column; the rest of a thing is one JSON document."""

from sqlalchemy import BigInteger, Boolean, Column, Connection, Index, Integer, MetaData, String, Table, Text, text

SCHEMA = "0001"  # the newest migration in store/migrations/versions; a test compares

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
    Index("audit_by_event", "event", "at_ms"),
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
