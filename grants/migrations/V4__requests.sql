-- Requests and the approvals of each. What was asked for stands in `terms` as JSON, and `digest` is its SHA-256, lower-case
-- hex: an approval names the digest that it is for. The columns beside `terms` only find it. Each row is named by a ledger
-- entry with the digest of its content, as those of V1 are.

CREATE TABLE requests (
    id             TEXT PRIMARY KEY NOT NULL,
    identity       TEXT NOT NULL,
    target         TEXT NOT NULL,
    terms          TEXT NOT NULL,
    digest         TEXT NOT NULL,
    opened         TEXT NOT NULL,
    expires        TEXT NOT NULL,
    state          TEXT NOT NULL,
    decided_at     TEXT,
    decided_by     TEXT,
    decided_reason TEXT,
    grant_id       TEXT
) STRICT;
CREATE INDEX requests_open ON requests (id) WHERE state = 'open';
CREATE INDEX requests_by_identity ON requests (identity, id);

CREATE TABLE approvals (
    request   TEXT NOT NULL,
    approver  TEXT NOT NULL,
    digest    TEXT NOT NULL,
    at        TEXT NOT NULL,
    level     INTEGER NOT NULL,
    proof     TEXT NOT NULL,
    signature TEXT,
    PRIMARY KEY (request, approver)
) STRICT;
