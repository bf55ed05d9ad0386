-- Reviews: somebody else looks at what was done with a grant that nobody had to approve. `id` is the grant's. Each row is named by a
-- ledger entry with the digest of its content, as those of V1 are.

CREATE TABLE reviews (
    id          TEXT PRIMARY KEY NOT NULL,
    identity    TEXT NOT NULL,
    target      TEXT NOT NULL,
    entitlement TEXT NOT NULL,
    reason      TEXT,
    opened      TEXT NOT NULL,
    until       TEXT NOT NULL,
    signed_at   TEXT,
    signed_by   TEXT,
    note        TEXT
) STRICT;
-- Who holds what one holds at a time.
CREATE INDEX grants_by_target ON grants (target, exp);
CREATE INDEX reviews_owed ON reviews (id) WHERE signed_at IS NULL;
