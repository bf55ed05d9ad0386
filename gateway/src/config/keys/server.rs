//! The gateway itself: its doors, how it records, and whom it tells.

use super::*;

pub(super) static GATEWAY: Table = Table {
    about: "The gateway itself.",
    keys: &[
        must("name", PLAIN, "Stands in every grant and every record."),
        may("node", PLAIN, "Tells several gateways of one store apart. Default: \"a\"."),
        must("public_names", Value::List(&PUBLIC_NAME, 1), "What people type: names or addresses, for certificates."),
        must("source_addresses", Value::List(&IP, 1), "The addresses that targets see of this gateway."),
        may(
            "sweep",
            POSITIVE,
            "How often targets are looked at for accounts with our mark and no lease. Default: \"10m\".",
        ),
        may("drain", DURATION, "How long live sessions may go on when the gateway is stopped. Default: \"30s\"."),
    ],
};

pub(super) static METRICS: Table = Table {
    about: "Who may watch the gateway from outside, without a login.",
    keys: &[must(
        "listen",
        LISTEN,
        "For /metrics, /healthz and /readyz. Keep it on loopback, or on a network of your own.",
    )],
};

pub(super) static LIMITS: Table = Table {
    about: "How many may come in at once; each door counts for itself.",
    keys: &[
        may("connections", COUNT, "Whatever their state. Default: 4096."),
        may("connections_per_source", COUNT, "Of one address (IPv6: of one /64). Default: 1024."),
        may("handshakes", COUNT, "That have not logged in yet; past it the oldest are hung up on. Default: 1024."),
        may("handshakes_per_source", COUNT, "The same, of one address. Default: 128."),
        may("handshake_timeout", POSITIVE, "To log in, up to 5 minutes (PostgreSQL: 10 s at most). Default: \"20s\"."),
        may("sessions_per_identity", COUNT, "Of one person. Default: 500."),
        may("sessions_per_target", COUNT, "On one target. Default: 2000."),
    ],
};

pub(super) static ROLES: Table = Table {
    about: "Which groups may do what to the gateway itself.",
    keys: &[
        may("admin", Value::List(&IDENTITY, 0), "Issue and revoke grants, never for themselves; reload."),
        may("auditor", Value::List(&IDENTITY, 0), "See what everybody does, everywhere; of a part: [[auditor]]."),
    ],
};

pub(super) static AUDITOR: Table = Table {
    about: "Who may see what some people do on some targets; roles.auditor sees everything.",
    keys: &[
        must("name", PLAIN, "What the configuration's summary calls it."),
        must("groups", Value::List(&IDENTITY, 1), "Who they are."),
        may("targets", Value::Selector, "What is done there: names, also of targets that are no more, or labels."),
        may("people", Value::List(&IDENTITY, 1), "What members of these groups do. Default: whoever does it."),
        may(
            "recipients",
            Value::List(&RECIPIENT, 1),
            "Their public keys: recordings of that part are sealed for these, beside recording.recipients.",
        ),
        may(
            "keystroke_recipients",
            Value::List(&RECIPIENT, 1),
            "Of those of them who may see what was typed, where recording.keystroke_recipients says who.",
        ),
    ],
};

pub(super) static SSH: Table = Table {
    about: "The door for SSH.",
    keys: &[
        must("listen", LISTEN, "An address of this host, and a port (0: any free one)."),
        may("user_ca", Value::OneOrList(&PUBLIC_KEY), "Authorities whose certificates say who somebody is."),
        may("revoked_keys", Value::Text, "A KRL or a list of public keys that open nothing any more."),
        may("proxy_protocol_from", PROXIES, PROXIED),
    ],
};

pub(super) static POSTGRES: Table = Table {
    about: "The door for PostgreSQL; TLS always.",
    keys: &[
        must("listen", LISTEN, "An address of this host, and a port (0: any free one)."),
        may("password_window", POSITIVE, "How long a password of `ssh gate password` is good. Default: \"10m\"."),
        may("tls_cert", Value::Text, TLS_CERT),
        may("tls_key", Value::Text, TLS_KEY),
        may("proxy_protocol_from", PROXIES, PROXIED),
    ],
};

pub(super) static API: Table = Table {
    about: "The door for programs: the HTTPS API, for whoever has a token.",
    keys: &[
        must("listen", LISTEN, "An address of this host, and a port (0: any free one)."),
        may(
            "url",
            Value::Like("^https://[a-z0-9.:\\[\\]-]+$"),
            "What browsers reach it by. Default: the first of public_names, and the port.",
        ),
        may("max_token_life", POSITIVE, "For how long a token may be made. Default: \"90d\"."),
        may("requests_per_minute", Value::Number(1, 100_000), "Of one token. Default: 300."),
        may(
            "show_heads",
            Value::Boolean,
            "Whoever asks /v1/status sees the ledger's signed heads, as a [[peer]] of another gateway does. Default: false.",
        ),
        may("tls_cert", Value::Text, TLS_CERT),
        may("tls_key", Value::Text, TLS_KEY),
    ],
};

pub(super) static RECORDING: Table = Table {
    about: "How sessions are recorded.",
    keys: &[
        must("recipients", Value::List(&RECIPIENT, 1), "The auditors' public keys: age or ssh-ed25519."),
        may(
            "keystroke_recipients",
            Value::List(&RECIPIENT, 1),
            "Of those who may see what was typed, passwords included. Default: recipients.",
        ),
        may(
            "stream_limit",
            SIZE,
            "Of scp, rsync, COPY and the like; the rest is counted and digested. Default: \"1MiB\".",
        ),
        may("durability", Value::OneOf(&["kernel", "disk"]), "\"disk\": fsync after each write. Default: \"kernel\"."),
        may(
            "replay_window",
            DURATION,
            "So long after a session the gateway can show its owner what was seen. Default: \"0s\".",
        ),
        may(
            "keep",
            POSITIVE,
            "So long after its end a recording is kept, where no [[retention]] fits. Default: for ever.",
        ),
        may(
            "budget",
            SIZE,
            "Recordings take at most so much: at 80 % it is told, and when it is full no session begins.",
        ),
        may(
            "results",
            RESULTS,
            "Rows of SQL's results that are kept, where an entitlement does not say. Default: \"none\".",
        ),
        may(
            "mask",
            Value::List(&MASK, 0),
            "Columns whose values are never written down, * for any letters; an entitlement adds its own.",
        ),
        later("anchor"),
    ],
};

pub(super) static RETENTION: Table = Table {
    about: "How long recordings of some targets are kept. The first that fits a recording counts.",
    keys: &[
        must("keep", POSITIVE, "So long after its end."),
        may("targets", Value::List(&TARGET_NAME, 1), "Of these, also if they are no more. Default: of all."),
        may("kind", Value::OneOf(&["ssh", "postgres"]), "Of sessions over this. Default: of both."),
    ],
};

pub(super) static PEER: Table = Table {
    about: "Another gateway: this one keeps the heads of its ledger, countersigned, and tells if it goes back.",
    keys: &[
        must("name", PLAIN, "What records call it; its heads are in state_dir/peers/NAME.jsonl."),
        must("url", Value::Like("^https://[^@/]+(/.*)?$"), "Its API."),
        must("public_key", Value::Text, "What `tidegate ca show ledger` prints there, or its 32 bytes in base64."),
        may("ca", Value::Text, "Who signs its certificate, a PEM file. Default: the system's."),
        may("every", POSITIVE, "From one look to the next, up to a day. Default: \"1m\"."),
    ],
};

pub(super) static ANCHOR: Table = Table {
    about: "Where the ledger's signed heads go, outside the gateway: an older store that is put back is found by them.",
    keys: &[
        must("name", PLAIN, "What records call it."),
        may(
            "file",
            Value::Text,
            "A file that grows by a line for each head, best on a mount that the gateway can only append to.",
        ),
        may("url", Value::Like("^https://[^@/]+(/.*)?$"), "A server that each head is sent to as JSON, with POST."),
        may("ca", Value::Text, "Who signs the server's certificate, PEM. Default: the system's authorities."),
        may("syslog", Value::Like("^(/.+|.+:[0-9]{1,5})$"), "A log server over UDP, or the path of a socket."),
        may("every", POSITIVE, "From one head to the next, while there is something new. Default: \"1m\"."),
    ],
};

pub(super) static SMTP: Table = Table {
    about: "The server that sends mail for [[notify]].",
    keys: &[
        must("server", ADDRESS, "Its name and port, like \"mail.example.com:587\"."),
        must("from", MAILBOX, "Who writes."),
        may(
            "tls",
            Value::OneOf(&["starttls", "implicit", "none"]),
            "\"none\" only to this host itself. Default: \"starttls\", and nothing goes without it.",
        ),
        may("tls_ca", Value::Text, "Who signs its certificate, a PEM file. Default: the system's authorities."),
        may("user", Value::Text, "The name to log in there with."),
        may("password_file", Value::Text, "A file of mode 0600 with the password of user."),
        may("password_env", VARIABLE, "The same: the environment variable that holds it."),
    ],
};

pub(super) static NOTIFY: Table = Table {
    about: "Who is told what happens, by mail or by a webhook.",
    keys: &[
        must("name", PLAIN, "What lists call it."),
        must(
            "kinds",
            Value::List(&Value::Like("^([a-z_]+|[a-z_]+\\.([a-z_]+|\\*))$"), 1),
            "Of what: break_glass, denial, teardown, orphan, recording, request, expiry, lock, mfa, store; or kinds of the ledger, like \"grant.*\".",
        ),
        may("to", Value::List(&MAILBOX, 1), "Mail: to whom. It needs [smtp]."),
        may("url", Value::Like("^https?://"), "Webhook: where to. http only to this host itself."),
        may(
            "format",
            Value::OneOf(&["json", "slack", "teams", "mattermost"]),
            "Webhook: what its receiver understands. Default: \"json\".",
        ),
        may("secret_file", Value::Text, "Webhook: a file of mode 0600 with what signs it, of 32 bytes or more."),
        may("secret_env", VARIABLE, "The same: the environment variable that holds it."),
        may("tls_ca", Value::Text, "Webhook: who signs the receiver's certificate, a PEM file. Default: the system's."),
    ],
};
