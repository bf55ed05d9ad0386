-- Locks: who or what is kept out, on an admin's word. `name` is the identity or the target, NULL where it is everything.

CREATE TABLE locks (
    id             TEXT PRIMARY KEY NOT NULL,
    what           TEXT NOT NULL CHECK (what IN ('user', 'target', 'all')),
    name           TEXT CHECK ((name IS NULL) = (what = 'all')),
    reason         TEXT NOT NULL,
    created_at     TEXT NOT NULL,
    created_by     TEXT NOT NULL,
    until          TEXT,
    removed_at     TEXT,
    removed_by     TEXT,
    removed_reason TEXT
) STRICT;
CREATE INDEX locks_not_removed ON locks (what, name) WHERE removed_at IS NULL;
