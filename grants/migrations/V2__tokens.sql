-- Tokens for the HTTPS API. The secret itself is nowhere: only its SHA-256, lower-case hex. Each row is named by a ledger
-- entry with the digest of its content, as those of V1 are.

CREATE TABLE tokens (
    id             TEXT PRIMARY KEY NOT NULL,
    identity       TEXT NOT NULL,
    label          TEXT NOT NULL,
    hash           TEXT NOT NULL UNIQUE,
    scope          TEXT NOT NULL,
    created_at     TEXT NOT NULL,
    created_by     TEXT NOT NULL,
    expires        TEXT NOT NULL,
    revoked_at     TEXT,
    revoked_by     TEXT,
    revoked_reason TEXT
) STRICT;
CREATE INDEX tokens_by_identity ON tokens (identity);
