//! What there is, and who may ask for it on which terms.

use super::*;

pub(super) static TARGET: Table = Table {
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

pub(super) static INVENTORY: Table = Table {
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

pub(super) static ENTITLEMENT: Table = Table {
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

pub(super) static LEVEL: Table = Table {
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

pub(super) static ESCALATE: Table = Table {
    about: "Who may say yes too, once a request has waited.",
    keys: &[
        must("after", POSITIVE, "For so long."),
        must("to", Value::List(&IDENTITY, 1), "Members of any of these groups, on every level."),
    ],
};

pub(super) static HOURS: Table = Table {
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

pub(super) static TICKET: Table = Table {
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
