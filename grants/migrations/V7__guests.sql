-- Who has logged in elsewhere, and as whom: a name that was one person's is never another's, and a person has one name. `groups` are
-- names with a space between; `ends` is in seconds since 1970, as all times are here that are compared. Rows stay.

CREATE TABLE guests (
    identity TEXT PRIMARY KEY NOT NULL,
    issuer   TEXT NOT NULL,
    subject  TEXT NOT NULL,
    groups   TEXT NOT NULL,
    since    INTEGER NOT NULL,
    ends     INTEGER NOT NULL
) STRICT;
CREATE INDEX guests_by_subject ON guests (issuer, subject);

-- SSH keys that are good for a while, as `ALGORITHM BASE64`.
CREATE TABLE lent_keys (
    key      TEXT PRIMARY KEY NOT NULL,
    identity TEXT NOT NULL,
    how      TEXT NOT NULL,
    since    INTEGER NOT NULL,
    ends     INTEGER NOT NULL
) STRICT;

-- Which outside tokens were exchanged for one of ours: none is twice, and the row stays until it has ended, as ours has.
CREATE TABLE exchanges (
    digest TEXT PRIMARY KEY NOT NULL,
    token  TEXT NOT NULL,
    ends   INTEGER NOT NULL
) STRICT;
