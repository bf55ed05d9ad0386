//! Every key that a configuration can have, once: what it takes and what it is for.
//!
//! The parser asks for no key that is not here (a debug build says so), what is not here is an unknown key, and the JSON
//! Schema for editors is made from the same tables. So the three cannot drift apart. What a value must be like beyond its
//! shape (that a file exists, that a name is somebody's) only the parser knows.

/// The keys of one table.
#[derive(Debug)]
pub(super) struct Table {
    /// What stands in it.
    pub(super) about: &'static str,
    /// In the order that they are best written in.
    pub(super) keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) value: Value,
    /// It must be there, whatever else is.
    pub(super) required: bool,
    pub(super) about: &'static str,
}

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    /// Any text.
    Text,
    /// A text of this regular expression, which both Rust's and JavaScript's dialect understand.
    Like(&'static str),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A whole number from … to ….
    Number(i64, i64),
    Boolean,
    /// A list of at least so many.
    List(&'static Value, usize),
    /// One, or a list of at least one.
    OneOrList(&'static Value),
    /// `{ env = "prod" }`
    Labels,
    /// Labels, or a list of names.
    Selector,
    /// `[name]`
    Table(&'static Table),
    /// `[[name]]`
    Tables(&'static Table),
    /// Of the contract, and not there yet.
    Later,
}

impl Table {
    /// The key of this name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// A table of which nothing is known.
pub(super) static NONE: Table = Table { about: "", keys: &[] };

/// Where a key that is not one of this table belongs, if another table has it.
pub(super) fn elsewhere(table: &'static Table, name: &str) -> Option<String> {
    if std::ptr::eq(table, &raw const ROOT) {
        let mut sections = ROOT.keys.iter().filter_map(|key| match key.value {
            Value::Table(section) => section.key(name).map(|_| key.name),
            _ => None,
        });
        return sections.next().map(|section| format!("write it under [{section}]"));
    }
    ROOT.key(name)?;
    if std::ptr::eq(table, &raw const LISTED) {
        return Some("take it out: an inventory lists targets and nothing else".to_owned());
    }
    Some(match std::ptr::eq(table, &raw const INCLUDED) {
        true => "write it into the main file: one that is included has [[user]], [[group]], [[target]], [[entitlement]] and [[issuer]]",
        false => "write it at the top of the file, above the first [section]",
    }
    .to_owned())
}

const fn must(name: &'static str, value: Value, about: &'static str) -> Key {
    Key { name, value, required: true, about }
}

const fn may(name: &'static str, value: Value, about: &'static str) -> Key {
    Key { name, value, required: false, about }
}

const fn later(name: &'static str) -> Key {
    Key { name, value: Value::Later, required: false, about: "Not supported yet." }
}

const IDENTITY: Value = Value::Like("^[a-z][a-z0-9_.-]{0,31}$");
const PLAIN: Value = Value::Like("^[a-z0-9][a-z0-9._-]{0,31}$");
const TARGET_NAME: Value = Value::Like("^[a-z0-9][a-z0-9.-]{0,62}$");
const ENTITLEMENT_NAME: Value = Value::Like("^[a-z0-9][a-z0-9._-]{0,62}$");
const LOGIN: Value = Value::Like("^[A-Za-z_][A-Za-z0-9._-]{0,31}$");
const DATABASE: Value = Value::Like("^[!#-&(-.0-?A-\\[\\]-}][ !#-&(-.0-?A-\\[\\]-}]{0,62}$");
const ROLE: Value = Value::Like("^[A-Za-z_][A-Za-z0-9_$.-]{0,62}$");
const DURATION: Value = Value::Like("^([0-9]+[smhd])+$");
/// The same, and not zero.
const POSITIVE: Value = Value::Like("^(?=.*[1-9])([0-9]+[smhd])+$");
const SIZE: Value = Value::Like("^[0-9]+(B|KiB|MiB|GiB)$");
/// A host and a port.
const ADDRESS: Value = Value::Like("^(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9.-]+):[0-9]{1,5}$");
/// An IP address and a port.
const LISTEN: Value = Value::Like("^(\\[[0-9A-Fa-f:.]+\\]|[0-9.]+):[0-9]{1,5}$");
const PUBLIC_KEY: Value = Value::Like("^(ssh-|ecdsa-sha2-|sk-)[a-z0-9@.-]+ +[A-Za-z0-9+/]{40,}=*( .*)?$");
const HOST_KEY: Value = Value::Like("^(ssh-|ecdsa-sha2-)[a-z0-9@.-]+ +[A-Za-z0-9+/]{40,}=*( .*)?$");
const RECIPIENT: Value = Value::Like("^(age1[a-z0-9]{58}|ssh-ed25519 +[A-Za-z0-9+/]{40,}=*( .*)?)$");
const RESULTS: Value = Value::OneOf(&["none", "head", "all"]);
const MASK: Value = Value::Like("^[A-Za-z0-9_*]*[A-Za-z0-9_][A-Za-z0-9_*]*$");
const PUBLIC_NAME: Value = Value::Like("^[A-Za-z0-9:][A-Za-z0-9.:-]*$");
const IP: Value = Value::Like("^[0-9A-Fa-f.:]+$");
const PRINCIPAL: Value = Value::Like("^[A-Za-z0-9@._:/+{}-]*\\{login\\}[A-Za-z0-9@._:/+{}-]*$");
const VARIABLE: Value = Value::Like("^[A-Za-z_][A-Za-z0-9_]*$");

/// The file itself.
pub(super) static ROOT: Table = Table {
    about: "tidegate: who may open what, for how long, on whose word. Relative paths start from the file that names them.",
    keys: &[
        must("version", Value::Number(1, 1), "Of this format: 1."),
        must("state_dir", Value::Text, "Where ledger, leases, recordings and keys are."),
        may(
            "include",
            Value::List(&Value::Text, 0),
            "More files with [[user]], [[group]], [[target]], [[entitlement]] and [[issuer]], like [\"targets.d/*.toml\"].",
        ),
        must("gateway", Value::Table(&GATEWAY), "The gateway itself."),
        may("roles", Value::Table(&ROLES), "Which groups may do what to the gateway itself."),
        may("ssh", Value::Table(&SSH), "The door for SSH."),
        may("postgres", Value::Table(&POSTGRES), "The door for PostgreSQL; TLS always."),
        may("api", Value::Table(&API), "The door for programs: the HTTPS API."),
        must("recording", Value::Table(&RECORDING), "How sessions are recorded."),
        may("user", Value::Tables(&USER), "Who may come to the door, and how they prove it."),
        may("group", Value::Tables(&GROUP), "A group whose members are members of others, too."),
        may("target", Value::Tables(&TARGET), "An SSH host or a database server."),
        may("entitlement", Value::Tables(&ENTITLEMENT), "What groups may ask for, where, and on which terms."),
        may("issuer", Value::Tables(&ISSUER), "An outside approval system whose signed grants are honoured."),
        may("metrics", Value::Table(&METRICS), "Who may watch the gateway from outside, without a login."),
        may("limits", Value::Table(&LIMITS), "How many may come in at once."),
        may(
            "inventory",
            Value::Tables(&INVENTORY),
            "Targets that a program or a directory lists, read again and again.",
        ),
        may("smtp", Value::Table(&SMTP), "The server that sends mail for [[notify]]."),
        may("notify", Value::Tables(&NOTIFY), "Who is told what happens, by mail or by a webhook."),
        may("workload", Value::Tables(&WORKLOAD), "A program that an outside issuer vouches for."),
        may("oidc", Value::Table(&OIDC), "Where people log in whom no key says anything about yet."),
        may("anchor", Value::Tables(&ANCHOR), "Where the ledger's signed heads go, outside the gateway."),
        may("retention", Value::Tables(&RETENTION), "How long recordings of some targets are kept."),
    ],
};

/// A file that another includes.
pub(super) static INCLUDED: Table = Table {
    about: "A part of a tidegate configuration, which another file includes.",
    keys: &[
        may("user", Value::Tables(&USER), "Who may come to the door, and how they prove it."),
        may("group", Value::Tables(&GROUP), "A group whose members are members of others, too."),
        may("target", Value::Tables(&TARGET), "An SSH host or a database server."),
        may("entitlement", Value::Tables(&ENTITLEMENT), "What groups may ask for, where, and on which terms."),
        may("issuer", Value::Tables(&ISSUER), "An outside approval system whose signed grants are honoured."),
    ],
};

/// What an inventory lists.
pub(super) static LISTED: Table = Table {
    about: "What an inventory lists.",
    keys: &[may("target", Value::Tables(&TARGET), "An SSH host or a database server.")],
};

static ANCHOR: Table = Table {
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

static RETENTION: Table = Table {
    about: "How long recordings of some targets are kept. The first that fits a recording counts.",
    keys: &[
        must("keep", POSITIVE, "So long after its end."),
        may("targets", Value::List(&TARGET_NAME, 1), "Of these, also if they are no more. Default: of all."),
        may("kind", Value::OneOf(&["ssh", "postgres"]), "Of sessions over this. Default: of both."),
    ],
};

static INVENTORY: Table = Table {
    about: "Targets that a program or a directory lists, read again and again.",
    keys: &[
        must("name", PLAIN, "What status and records call it."),
        may(
            "command",
            Value::List(&Value::Text, 1),
            "A program and its arguments: it prints {\"targets\": [{…}]} as JSON. No shell.",
        ),
        may("directory", Value::Text, "A directory of TOML files with [[target]]."),
        may("every", POSITIVE, "From one look to the next. Default: \"5m\"."),
        may("deadline", POSITIVE, "The program is killed after this. Default: \"30s\"."),
        may("env", Value::List(&VARIABLE, 0), "Environment variables that it gets, beside PATH, HOME and LANG."),
    ],
};

/// One mailbox, with a name before it or without.
const MAILBOX: Value = Value::Like("^[^@<>]*<?[^@<> ]+@[^@<> ]+>?$");

static SMTP: Table = Table {
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

static NOTIFY: Table = Table {
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

static GATEWAY: Table = Table {
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

static METRICS: Table = Table {
    about: "Who may watch the gateway from outside, without a login.",
    keys: &[must(
        "listen",
        LISTEN,
        "For /metrics, /healthz and /readyz. Keep it on loopback, or on a network of your own.",
    )],
};

/// Of connections and sessions.
const COUNT: Value = Value::Number(1, 1_000_000);

static LIMITS: Table = Table {
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

static ROLES: Table = Table {
    about: "Which groups may do what to the gateway itself.",
    keys: &[
        may("admin", Value::List(&IDENTITY, 0), "Issue and revoke grants, never for themselves; reload."),
        may("auditor", Value::List(&IDENTITY, 0), "Read grants, leases and sessions."),
    ],
};

const NETWORK: Value = Value::Like("^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$");
const PROXIES: Value = Value::List(&NETWORK, 0);
const PROXIED: &str = "Balancers that say, by the PROXY protocol version 2, where a connection comes from, and must.";

static SSH: Table = Table {
    about: "The door for SSH.",
    keys: &[
        must("listen", LISTEN, "An address of this host, and a port (0: any free one)."),
        may("user_ca", Value::OneOrList(&PUBLIC_KEY), "Authorities whose certificates say who somebody is."),
        may("revoked_keys", Value::Text, "A KRL or a list of public keys that open nothing any more."),
        may("proxy_protocol_from", PROXIES, PROXIED),
    ],
};

const TLS_CERT: &str = "The certificate with its chain, a PEM file. Default: one of the gateway's own CA.";
const TLS_KEY: &str = "Its key, a PEM file of mode 0600.";

static POSTGRES: Table = Table {
    about: "The door for PostgreSQL; TLS always.",
    keys: &[
        must("listen", LISTEN, "An address of this host, and a port (0: any free one)."),
        may("password_window", POSITIVE, "How long a password of `ssh gate password` is good. Default: \"10m\"."),
        may("tls_cert", Value::Text, TLS_CERT),
        may("tls_key", Value::Text, TLS_KEY),
        may("proxy_protocol_from", PROXIES, PROXIED),
    ],
};

static API: Table = Table {
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
        may("tls_cert", Value::Text, TLS_CERT),
        may("tls_key", Value::Text, TLS_KEY),
    ],
};

static RECORDING: Table = Table {
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

static GROUP: Table = Table {
    about: "A group whose members are members of others, too.",
    keys: &[
        must("name", IDENTITY, "The group, as users have it in groups."),
        must("groups", Value::List(&IDENTITY, 0), "Whoever is in it is in these, too; no group is in itself."),
    ],
};

static USER: Table = Table {
    about: "Who may come to the door, and how they prove it.",
    keys: &[
        must("name", IDENTITY, "Who it is, in grants and records."),
        may("groups", Value::List(&IDENTITY, 0), "What entitlements and roles go by."),
        may("ssh_keys", Value::List(&PUBLIC_KEY, 0), "Public keys, each of nobody else."),
        may(
            "unix_user",
            Value::Like("^[^:/, \\t]{1,64}$"),
            "This local account, on the gateway's Unix socket, is this user.",
        ),
        may("oidc", Value::Text, "Their `sub` at the [oidc] provider: by that login they are this user."),
        later("totp"),
        later("email"),
        later("notify"),
        later("tokens"),
    ],
};

static TARGET: Table = Table {
    about: "An SSH host or a database server, and how it proves that it is itself.",
    keys: &[
        must("name", TARGET_NAME, "What people type, and records say."),
        must("kind", Value::OneOf(&["ssh", "postgres"]), "An SSH host, or a PostgreSQL server."),
        must("address", ADDRESS, "Host and port."),
        may("labels", Value::Labels, "What entitlements can choose targets by."),
        may("host_key", Value::OneOrList(&HOST_KEY), "SSH: the host's own key. There is no trust on first use."),
        may("host_ca", Value::OneOrList(&HOST_KEY), "SSH: who signs the host's certificate, in place of host_key."),
        may("host_name", Value::Text, "SSH: the name in that certificate. Default: the host part of the address."),
        may("principal", PRINCIPAL, "SSH: of our certificates. Default: \"{login}@{target}\"."),
        may("tls_ca", Value::Text, "PostgreSQL: the CA of the server's certificate, a PEM file. Verify-full, always."),
        may("admin_user", ROLE, "PostgreSQL: the gateway's own login, which may call its functions and nothing else."),
        may("auth", Value::OneOf(&["cert", "scram"]), "PostgreSQL: how sessions log in there. Default: \"cert\"."),
        may(
            "admin_password_file",
            Value::Text,
            "PostgreSQL, auth = \"scram\": a file of mode 0600 with admin_user's password.",
        ),
        may("admin_password_env", VARIABLE, "The same: the environment variable that holds it."),
        may("admin_address", ADDRESS, "PostgreSQL: where roles are made, when address is a replica."),
    ],
};

static ENTITLEMENT: Table = Table {
    about: "What groups may ask for, on which targets, and on which terms.",
    keys: &[
        must("name", ENTITLEMENT_NAME, "What people and grants call it."),
        must("groups", Value::List(&IDENTITY, 1), "Who may ask."),
        must("targets", Value::Selector, "Where: a list of names, or labels."),
        may("logins", Value::List(&LOGIN, 1), "SSH: as whom."),
        may(
            "files",
            Value::OneOf(&["none", "download", "upload", "both"]),
            "SSH: which way files go over SFTP, scp and rsync. Default: \"both\".",
        ),
        may(
            "forward",
            Value::List(&Value::Like(":"), 0),
            "SSH: where connections from the target may go, like \"localhost:8000-8999\".",
        ),
        may("databases", Value::List(&DATABASE, 1), "PostgreSQL: in which databases."),
        may("roles", Value::List(&ROLE, 1), "PostgreSQL: what the role of a session is made a member of."),
        may(
            "inherit",
            Value::Boolean,
            "PostgreSQL: false: it has their privileges only after SET ROLE. Default: true.",
        ),
        may("owner", ROLE, "PostgreSQL: this NOLOGIN role owns what is made. It grants all its privileges."),
        may(
            "leftovers",
            Value::OneOf(&["quarantine", "drop"]),
            "PostgreSQL: what a session made is kept aside, or dropped. Default: \"quarantine\".",
        ),
        may("max_connections", Value::Number(1, 1000), "PostgreSQL: at once, of one person. Default: 10."),
        must("max_duration", POSITIVE, "How long a grant may be good, up to 30 days."),
        may("idle_timeout", POSITIVE, "A session in which nothing comes or goes for so long ends. Default: never."),
        may(
            "mfa",
            Value::OneOf(&["none", "request", "session"]),
            "\"session\": opens only for a login with a fresh second factor; \"request\": asked for only with one. Default: \"none\".",
        ),
        may(
            "approvals",
            Value::Tables(&LEVEL),
            "Who must say yes, level by level; [] grants at once. Without it only an admin or an issuer grants it.",
        ),
        may(
            "break_glass",
            Value::Boolean,
            "For emergencies: granted at once with a reason and a second factor, for 4h at most, and somebody else reviews it. Default: false.",
        ),
        may(
            "extend",
            Value::OneOf(&["once"]),
            "A grant may be extended, once, by whoever approved it, while its sessions go on. Default: not at all.",
        ),
        may(
            "clock",
            Value::OneOf(&["approval", "first-use"]),
            "When the time of a grant that was asked for starts; \"first-use\": with its first session, within a day. Default: \"approval\".",
        ),
        may("escalate", Value::Table(&ESCALATE), "Who may say yes too, once a request has waited."),
        may("reason", Value::OneOf(&["required", "optional"]), "Whether who asks must say why. Default: \"required\"."),
        may("hours", Value::Table(&HOURS), "Only then; sessions end with them. Default: always."),
        may(
            "when",
            Value::Text,
            "Only while this Cedar condition holds, over principal, resource and context (ip, time, ticket, device); sessions end with it.",
        ),
        may(
            "max_sessions",
            Value::Number(1, 1000),
            "Of one person at once under this entitlement, on all targets. Default: no limit of its own.",
        ),
        may(
            "exclusive",
            Value::Boolean,
            "On each target one person holds it at a time; whoever else is granted it waits for their turn. Default: false.",
        ),
        may("ticket", Value::Table(&TICKET), "Who asks must name a ticket."),
        may(
            "watch",
            Value::OneOf(&["optional", "required"]),
            "\"required\": a session stands still while no auditor watches it. Default: \"optional\".",
        ),
        may(
            "results",
            RESULTS,
            "PostgreSQL: rows of results that its recordings keep. Default: as [recording] has it; \"all\" where the glass is broken.",
        ),
        may(
            "mask",
            Value::List(&MASK, 0),
            "PostgreSQL: columns whose values are never written down, beside those of [recording].",
        ),
        later("max_rows"),
    ],
};

static LEVEL: Table = Table {
    about: "One level of approval.",
    keys: &[
        must("from", Value::List(&IDENTITY, 1), "Members of any of these groups may say yes, but never to themselves."),
        may("count", Value::Number(1, 16), "So many of them must. Default: 1."),
        may(
            "proof",
            Value::OneOf(&["attested", "signed"]),
            "\"signed\": by the approver's own SSH key. Default: \"attested\", by the gateway.",
        ),
    ],
};

static ESCALATE: Table = Table {
    about: "Who may say yes too, once a request has waited.",
    keys: &[
        must("after", POSITIVE, "For so long."),
        must("to", Value::List(&IDENTITY, 1), "Members of any of these groups, on every level."),
    ],
};

static HOURS: Table = Table {
    about: "When an entitlement may be used.",
    keys: &[
        must(
            "days",
            Value::Like(
                "^(mon|tue|wed|thu|fri|sat|sun)(-(mon|tue|wed|thu|fri|sat|sun))?(,(mon|tue|wed|thu|fri|sat|sun)(-(mon|tue|wed|thu|fri|sat|sun))?)*$",
            ),
            "Like \"mon-fri\" or \"mon,wed,sat-sun\".",
        ),
        must("from", Value::Like("^([01][0-9]|2[0-3]):[0-5][0-9]$"), "Like \"08:00\"."),
        must(
            "to",
            Value::Like("^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"),
            "Like \"18:00\"; at or before `from`: on the next day.",
        ),
        must("tz", Value::Text, "A time zone, like \"Europe/Berlin\" or \"UTC\"."),
    ],
};

static TICKET: Table = Table {
    about: "What a ticket must look like.",
    keys: &[
        must("pattern", Value::Text, "A regular expression that it matches."),
        may(
            "check_url",
            Value::Like("^https?://.*\\{ticket\\}"),
            "Where the ticket system is asked with GET: 2xx says that there is such a ticket, no answer is a no.",
        ),
    ],
};

/// Of this host itself in clear, else over TLS.
const URL: Value = Value::Like("^https?://[^@/]+(/.*)?$");
const ALGORITHMS: Value =
    Value::List(&Value::OneOf(&["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]), 1);

static OIDC: Table = Table {
    about: "An OpenID provider: people log in there from within `ssh`, and are here whom it says, for a while.",
    keys: &[
        must("issuer", URL, "As it calls itself. http only to this host itself."),
        must("client_id", Value::Text, "What this gateway is called there."),
        may(
            "client_secret_file",
            Value::Text,
            "A file of mode 0600 with that client's secret; a public client has none.",
        ),
        may("client_secret_env", VARIABLE, "The same: the environment variable that holds it."),
        may("tls_ca", Value::Text, "Who signs its certificate, a PEM file. Default: the system's."),
        may("identity", Value::Text, "The claim that is the name here. Default: \"preferred_username\"."),
        may("suffix", Value::Text, "What follows the name there, like \"@example.com\"; who has it not is not let in."),
        may("groups_claim", Value::Text, "The claim with the groups. Default: \"groups\"."),
        must(
            "groups",
            Value::Labels,
            "Groups there, and what they are here. Others mean nothing; no role comes by them.",
        ),
        may("scopes", Value::List(&Value::Text, 0), "What is asked for beside openid. Default: [\"profile\"]."),
        may("algorithms", ALGORITHMS, "Of its ID tokens. Default: [\"RS256\", \"ES256\", \"EdDSA\"]."),
        may("life", POSITIVE, "For how long a login is good, and the key with it, up to 7 days. Default: \"1d\"."),
    ],
};

static WORKLOAD: Table = Table {
    about: "A program that an outside issuer vouches for: it gets a short token for one of its issuer's.",
    keys: &[
        must("name", IDENTITY, "Who it is, in grants and records."),
        may(
            "groups",
            Value::List(&IDENTITY, 0),
            "What entitlements go by. None of an admin, an auditor or an approver.",
        ),
        must("issuer", Value::Text, "The `iss` of its tokens."),
        must("audience", Value::Text, "What their `aud` must name."),
        must(
            "claims",
            Value::Labels,
            "What else must stand in them, like { sub = \"repo:acme/shop:ref:refs/heads/main\" }.",
        ),
        may("algorithms", ALGORITHMS, "Of their signatures. Default: [\"RS256\", \"ES256\", \"EdDSA\"]."),
        may("jwks_url", URL, "Where its issuer's public keys are. http only to this host itself."),
        may("jwks_file", Value::Text, "The same as a file."),
        may("tls_ca", Value::Text, "Who signs that server's certificate, a PEM file. Default: the system's."),
        may(
            "life",
            POSITIVE,
            "Of the token that it gets, and of a key that it registers, up to a day. Default: \"15m\".",
        ),
    ],
};

static ISSUER: Table = Table {
    about: "An outside approval system whose signed grants are honoured.",
    keys: &[
        must("name", PLAIN, "The `iss` of its grants."),
        must("algorithm", Value::OneOf(&["HS256", "EdDSA"]), "Pinned: a token does not choose it."),
        may("secret_file", Value::Text, "HS256: a file of mode 0600 with the shared secret, of 32 bytes or more."),
        may("secret_env", VARIABLE, "HS256: the environment variable that holds it."),
        may("public_key", Value::Text, "EdDSA: its Ed25519 key, PEM or base64."),
        must("entitlements", Value::List(&ENTITLEMENT_NAME, 1), "What it may grant, and nothing else."),
        must("max_ttl", POSITIVE, "For how long at most."),
        may("counts_as_approval", Value::Boolean, "Its grants count as an approval. Default: false."),
        later("jwks_url"),
        later("audience"),
    ],
};
