-- Every row of every table here is named by a ledger entry with the digest of its content (table ledger), or is itself
-- signed (table heads). Times are RFC 3339 text, ids UUID text, digests and signatures lower-case hex.

CREATE TABLE ledger (
    place      INTEGER PRIMARY KEY,     -- order over all chains of this store
    node       TEXT NOT NULL,
    seq        INTEGER NOT NULL,        -- from 1, without gaps, per node
    at         TEXT NOT NULL,
    config     TEXT NOT NULL,
    kind       TEXT NOT NULL,
    session    TEXT,
    identity   TEXT,
    target     TEXT,
    grant_id   TEXT,
    lease      TEXT,
    detail     TEXT NOT NULL,
    row_table  TEXT,
    row_key    TEXT,
    row_digest TEXT,
    prev       TEXT NOT NULL,
    hash       TEXT NOT NULL,
    UNIQUE (node, seq)
) STRICT;
CREATE INDEX ledger_by_row ON ledger (row_table, row_key, place);

CREATE TABLE heads (
    node      TEXT PRIMARY KEY NOT NULL,
    seq       INTEGER NOT NULL,
    hash      TEXT NOT NULL,
    at        TEXT NOT NULL,
    signature TEXT NOT NULL
) STRICT;

-- The token is the grant. The columns beside it only find it; what counts is verified from the token at each use.
CREATE TABLE grants (
    id             TEXT PRIMARY KEY NOT NULL,
    iss            TEXT NOT NULL,
    jti            TEXT NOT NULL,
    identity       TEXT NOT NULL,
    target         TEXT NOT NULL,
    exp            INTEGER NOT NULL,
    token          TEXT NOT NULL,
    added_at       TEXT NOT NULL,
    added_by       TEXT NOT NULL,
    revoked_at     TEXT,
    revoked_by     TEXT,
    revoked_reason TEXT,
    used_at        TEXT,
    used_by        TEXT,                -- the session, if the grant is good for one
    UNIQUE (iss, jti)
) STRICT;
CREATE INDEX grants_by_use ON grants (identity, target, exp);

CREATE TABLE sessions (
    id       TEXT PRIMARY KEY NOT NULL,
    node     TEXT NOT NULL,
    identity TEXT NOT NULL,
    target   TEXT NOT NULL,
    access   TEXT NOT NULL,
    grant_id TEXT NOT NULL REFERENCES grants (id),
    source   TEXT NOT NULL,
    start    TEXT NOT NULL,
    finish   TEXT,
    outcome  TEXT
) STRICT;
CREATE INDEX sessions_live ON sessions (id) WHERE finish IS NULL;

-- No foreign key: a lease must be writable even where the row that it would point at was tampered away.
CREATE TABLE leases (
    id         TEXT PRIMARY KEY NOT NULL,
    node       TEXT NOT NULL,
    session    TEXT NOT NULL,
    target     TEXT NOT NULL,
    identity   TEXT NOT NULL,
    kind       TEXT NOT NULL,
    name       TEXT NOT NULL,
    state      TEXT NOT NULL,
    deadline   TEXT NOT NULL,
    attempts   INTEGER NOT NULL,
    last_error TEXT,
    detail     TEXT NOT NULL,
    receipt    TEXT
) STRICT;
CREATE INDEX leases_open ON leases (id) WHERE state <> 'closed';

CREATE TABLE passwords (
    identity TEXT NOT NULL,
    target   TEXT NOT NULL,
    verifier TEXT NOT NULL,
    expires  TEXT NOT NULL,
    source   TEXT,
    PRIMARY KEY (identity, target)
) STRICT;
