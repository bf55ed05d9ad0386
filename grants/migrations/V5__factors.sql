-- Second factors. `seed` is sealed by the gateway under a key of its own; `recovery` has the SHA-256 of each code that is left, lower-case
-- hex, with a space between. `last_step` is the latest time step (RFC 6238) whose code was taken: it and those before are never taken again.

CREATE TABLE factors (
    identity    TEXT PRIMARY KEY NOT NULL,
    seed        TEXT NOT NULL,
    recovery    TEXT NOT NULL,
    added_at    TEXT NOT NULL,
    added_by    TEXT NOT NULL,
    last_step   INTEGER NOT NULL DEFAULT 0,
    proven_at   TEXT,
    proven_from TEXT
) STRICT;

-- Which passwords were given to somebody who had just proven a second factor. `password` is their key, IDENTITY@TARGET.
CREATE TABLE password_factors (
    password  TEXT PRIMARY KEY NOT NULL,
    verifier  TEXT NOT NULL,
    proven_at TEXT NOT NULL
) STRICT;
