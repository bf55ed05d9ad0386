//! What is said of wrong configurations: one table, and beside it a file that a person can read from top to bottom
//! (`snapshots/`), each wrong text with all that is said of it.
//!
//! A new message is a new row here; `INSTA_UPDATE=always cargo test` writes the file anew, and a person reads what changed.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::tests::{AGE, ALICE, HOST, check, folder, good};
use std::{fmt::Write as _, fs, path::Path};

/// What stands in the right configuration, and what is put in its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    right: &'static str,
    pub(super) wrong: &'static str,
    /// The schema refuses it too, so an editor shows it.
    pub(super) seen: bool,
}

const fn seen(right: &'static str, wrong: &'static str) -> Row {
    Row { right, wrong, seen: true }
}

const fn unseen(right: &'static str, wrong: &'static str) -> Row {
    Row { right, wrong, seen: false }
}

const WRONG: &[Row] = &[
    seen("version = 1", "version = 2"),
    seen("version = 1", "version = \"1\""),
    seen("version = 1\n", ""),
    seen("state_dir = \"state\"\n", ""),
    seen("name = \"gate\"", "name = \"Gate\""),
    seen("name = \"gate\"", "nmae = \"gate\""),
    seen("name = \"gate\"", "name = \"gate\"\nnoed = \"b\""),
    seen("[\"gate.example.com\"]", "[\"*.example.com\"]"),
    seen("[\"gate.example.com\"]", "[]"),
    seen("[\"gate.example.com\"]", "\"gate.example.com\""),
    seen("[\"10.0.0.5\"]", "[\"10.0.0.0/8\"]"),
    unseen("[\"10.0.0.5\"]", "[\"10.0.0.5\", \"10.0.0.5\"]"),
    seen("admin = [\"platform\"]", "admins = [\"platform\"]"),
    seen("admin = [\"platform\"]", "admin = [7]"),
    seen("127.0.0.1:2222", "localhost:2222"),
    unseen("127.0.0.1:6432", "127.0.0.1:2222"),
    unseen("listen = \"127.0.0.1:6432\"", "listen = \"127.0.0.1:6432\"\ntls_cert = \"x\""),
    unseen(
        "listen = \"127.0.0.1:6432\"",
        "listen = \"127.0.0.1:6432\"\ntls_cert = \"ca.pem\"\ntls_key = \"missing.key\"",
    ),
    unseen("listen = \"127.0.0.1:6432\"", "listen = \"127.0.0.1:6432\"\ntls_cert = \"ca.pem\"\ntls_key = \"open.key\""),
    unseen(
        "listen = \"127.0.0.1:6432\"",
        "listen = \"127.0.0.1:6432\"\ntls_cert = \"ca.pem\"\ntls_key = \"short.key\"",
    ),
    unseen("[recording]", "[api]\nlisten = \"127.0.0.1:8443\"\ntls_key = \"short.key\"\n[recording]"),
    seen("listen = \"127.0.0.1:6432\"", "listen = \"127.0.0.1:6432\"\npassword_window = \"10\""),
    seen("[recording]", "[api]\nmax_token_life = \"90d\"\n[recording]"),
    unseen("[recording]", "[api]\nlisten = \"127.0.0.1:2222\"\n[recording]"),
    seen("[recording]", "[api]\nlisten = \"127.0.0.1:8443\"\nmax_token_life = \"0s\"\n[recording]"),
    seen("[recording]", "[api]\nlisten = \"127.0.0.1:8443\"\nrequests_per_minute = 0\n[recording]"),
    seen("[recording]", "[api]\nlisten = \"127.0.0.1:8443\"\nurl = \"http://gate.example.com\"\n[recording]"),
    seen("[recording]", "[api]\nlisten = \"127.0.0.1:8443\"\nurl = \"https://gate.example.com/\"\n[recording]"),
    seen("[recording]", "include = [\"x\"]\n[recording]"),
    unseen(
        "[recording]",
        "[[notify]]\nname = \"ops\"\nkinds = [\"denials\"]\nurl = \"https://hooks.example.com/x\"\n[recording]",
    ),
    seen("[recording]", "[[notify]]\nname = \"ops\"\nkinds = []\nurl = \"https://hooks.example.com/x\"\n[recording]"),
    unseen("[recording]", "[[notify]]\nname = \"ops\"\nkinds = [\"lock\"]\n[recording]"),
    unseen(
        "[recording]",
        "[[notify]]\nname = \"ops\"\nkinds = [\"lock\"]\nurl = \"http://hooks.example.com/x\"\n[recording]",
    ),
    seen("[recording]", "[[notify]]\nname = \"ops\"\nkinds = [\"lock\"]\nurl = \"hooks.example.com\"\n[recording]"),
    unseen(
        "[recording]",
        "[[notify]]\nname = \"ops\"\nkinds = [\"lock\"]\nurl = \"https://hooks.example.com/x\"\nto = [\"oncall@example.com\"]\n[recording]",
    ),
    seen(
        "[recording]",
        "[[notify]]\nname = \"ops\"\nkinds = [\"lock\"]\nurl = \"https://hooks.example.com/x\"\nformat = \"xml\"\n[recording]",
    ),
    unseen(
        "[recording]",
        "[[notify]]\nname = \"ops\"\nkinds = [\"lock\"]\nurl = \"https://hooks.example.com/x\"\nsecret_file = \"nowhere.key\"\n[recording]",
    ),
    unseen("[recording]", "[[notify]]\nname = \"ops\"\nkinds = [\"lock\"]\nto = [\"oncall@example.com\"]\n[recording]"),
    unseen(
        "[recording]",
        "[smtp]\nserver = \"mail.example.com:25\"\nfrom = \"gate@example.com\"\ntls = \"none\"\n[recording]",
    ),
    seen("[recording]", "[smtp]\nserver = \"mail.example.com\"\nfrom = \"gate@example.com\"\n[recording]"),
    seen("recipients = [", "replay_window = \"soon\"\nrecipients = ["),
    seen("recipients = [", "keep = \"0d\"\nrecipients = ["),
    seen("recipients = [", "budget = \"much\"\nrecipients = ["),
    unseen("recipients = [", "budget = \"0GiB\"\nrecipients = ["),
    seen("[[issuer]]", "[[retention]]\ntargets = [\"web-1\"]\n[[issuer]]"),
    seen("[[issuer]]", "[[retention]]\nkeep = \"90d\"\ntargets = [\"Web 1\"]\n[[issuer]]"),
    seen("[[issuer]]", "[[retention]]\nkeep = \"90d\"\nkind = \"mysql\"\n[[issuer]]"),
    seen("[[issuer]]", "[[auditor]]\nname = \"shop\"\ntargets = [\"orders\"]\n[[issuer]]"),
    unseen("[[issuer]]", "[[auditor]]\nname = \"shop\"\ngroups = [\"sre\"]\n[[issuer]]"),
    seen("[[issuer]]", "[[auditor]]\nname = \"shop\"\ngroups = [\"sre\"]\npeople = []\n[[issuer]]"),
    seen("[[issuer]]", "[[auditor]]\nname = \"shop\"\ngroups = [\"sre\"]\ntargets = {}\n[[issuer]]"),
    unseen("[[issuer]]", "[[auditor]]\nname = \"shop\"\ngroups = [\"sre\"]\ntargets = [\"Web 1\"]\n[[issuer]]"),
    seen(
        "[[issuer]]",
        "[[auditor]]\nname = \"shop\"\ngroups = [\"sre\"]\ntargets = [\"orders\"]\nrecipients = [\"age1oops\"]\n[[issuer]]",
    ),
    unseen(
        "[[issuer]]",
        "[[auditor]]\nname = \"shop\"\ngroups = [\"sre\"]\ntargets = [\"orders\"]\nkeystroke_recipients = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti\"]\n[[issuer]]",
    ),
    seen("recipients = [", "stream_limit = \"1MB\"\nrecipients = ["),
    seen("recipients = [", "durability = \"none\"\nrecipients = ["),
    seen("recipients = [", "results = \"some\"\nrecipients = ["),
    seen("recipients = [", "mask = [\"*\"]\nrecipients = ["),
    seen("recipients = [", "keystroke_recipients = []\nrecipients = ["),
    seen(AGE, "age1oops"),
    seen(AGE, "AGE-SECRET-KEY-1X"),
    seen("name = \"alice\"", "name = \"Alice\""),
    unseen("name = \"alice\"", "name = \"ada\""),
    seen("name = \"alice\"\n", ""),
    seen(ALICE, "ssh-ed25519 AAAA"),
    seen(ALICE, "sk-ssh-ed25519@openssh.com AAAA"),
    seen("unix_user = \"ada\"", "unix_user = \"a:b\""),
    unseen("groups = [\"sre\"]\nssh_keys", "unix_user = \"ada\"\nssh_keys"),
    seen("name = \"web-1\"", "name = \"web/1\""),
    unseen("name = \"orders\"", "name = \"web-1\""),
    seen("kind = \"ssh\"", "kind = \"telnet\""),
    seen("10.0.0.11:22", "10.0.0.11"),
    seen(HOST, "AAAA"),
    seen(HOST, ""),
    seen("host_key = ", "host_name = \"web-1.example.com\"\nhost_key = "),
    seen("host_key = ", "host_ca = \"x\"\nhost_key = "),
    seen(
        HOST,
        "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gAAAABHNzaDo=",
    ),
    seen("labels = { env = \"prod\" }", "principal = \"root\""),
    seen("labels = { env = \"prod\" }", "principal = \"{login},root\""),
    seen("labels = { env = \"prod\" }", "tls_ca = \"ca.pem\""),
    unseen("tls_ca = \"ca.pem\"", "tls_ca = \"gone.pem\""),
    unseen("tls_ca = \"ca.pem\"", "tls_ca = \"no.pem\""),
    seen("tls_ca = \"ca.pem\"\n", ""),
    seen("admin_user = \"tidegate\"", "admin_user = \"tidegate\"\nauth = \"scram\""),
    seen("admin_user = \"tidegate\"", "admin_user = \"tidegate\"\nhost_key = \"x\""),
    seen("admin_user = \"tidegate\"", "admin_user = \"tidegate\"\nadmin_address = \"x\""),
    unseen("targets = [\"orders\"]", "targets = [\"order\"]"),
    unseen("targets = [\"orders\"]", "targets = [\"web-1\"]"),
    seen("targets = { env = \"prod\" }", "targets = {}"),
    seen("logins = [\"deploy\"]", "logins = [\"a,b\"]"),
    seen(
        "logins = [\"deploy\"]",
        "logins = [\"deploy\"]\nhours = { days = \"mo-fr\", from = \"08:00\", to = \"18:00\", tz = \"UTC\" }",
    ),
    seen(
        "logins = [\"deploy\"]",
        "logins = [\"deploy\"]\nhours = { days = \"mon-fri\", from = \"8\", to = \"18:00\", tz = \"UTC\" }",
    ),
    seen(
        "logins = [\"deploy\"]",
        "logins = [\"deploy\"]\nhours = { days = \"mon-fri\", from = \"08:00\", to = \"24:30\", tz = \"UTC\" }",
    ),
    unseen(
        "logins = [\"deploy\"]",
        "logins = [\"deploy\"]\nhours = { days = \"mon-fri\", from = \"08:00\", to = \"18:00\", tz = \"Mars/Olympus\" }",
    ),
    seen(
        "logins = [\"deploy\"]",
        "logins = [\"deploy\"]\nhours = { days = \"mon\", from = \"08:00\", to = \"18:00\" }",
    ),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nhours = \"office\""),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nwhen = true"),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\napprovals = []\nclock = \"first-login\""),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nclock = \"first-use\""),
    unseen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nwhen = 'context.ipp.isIpv4()'"),
    unseen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nwhen = 'context.ip.isInRange(ip(\"10.0.0.0/33\"))'"),
    unseen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nwhen = 'principal in Grop::\"sre\"'"),
    unseen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nwhen = 'context.ip.'"),
    unseen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nwhen = 'true }; permit(principal, action, resource'"),
    unseen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nwhen = 'context.device.hardware && false'"),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nmax_sessions = 0"),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nexclusive = 1"),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\napprovals = \"sre\""),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\napprovals = [\"sre\"]"),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\napprovals = [{ count = 1 }]"),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\napprovals = [{ from = [] }]"),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\napprovals = [{ from = [\"sre\"], count = 0 }]"),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\napprovals = [{ from = [\"sre\"], proof = \"sworn\" }]"),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\napprovals = [{ from = [\"sre\"], form = 1 }]"),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nreason = \"required\""),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\napprovals = []\nextend = \"twice\""),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nextend = \"once\""),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nbreak_glass = \"yes\""),
    unseen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nbreak_glass = true"),
    unseen(
        "logins = [\"deploy\"]",
        "logins = [\"deploy\"]\nbreak_glass = true\nmfa = \"session\"\napprovals = [{ from = [\"sre\"] }]\nreason = \"optional\"",
    ),
    unseen("max_duration = \"1h\"", "max_duration = \"5h\"\nbreak_glass = true\nmfa = \"session\""),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\napprovals = []\nreason = \"maybe\""),
    unseen("logins = [\"deploy\"]", "logins = [\"deploy\"]\napprovals = []\nticket = { pattern = \"(\" }"),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\napprovals = []\nticket = \"INC\""),
    seen(
        "logins = [\"deploy\"]",
        "logins = [\"deploy\"]\napprovals = []\nticket = { pattern = \"x\", check_url = \"https://x\" }",
    ),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\napprovals = []\nescalate = { after = \"10m\" }"),
    seen(
        "logins = [\"deploy\"]",
        "logins = [\"deploy\"]\napprovals = []\nescalate = { after = \"0s\", to = [\"sre\"] }",
    ),
    unseen(
        "logins = [\"deploy\"]",
        "logins = [\"deploy\"]\napprovals = [{from=[\"a\"]},{from=[\"b\"]},{from=[\"c\"]},{from=[\"d\"]},{from=[\"e\"]},{from=[\"f\"]},{from=[\"g\"]},{from=[\"h\"]},{from=[\"i\"]}]",
    ),
    seen("logins = [\"deploy\"]\n", ""),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nowner = \"x\""),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nforward = [\"localhost:80\", \"db-1\"]"),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nforward = [\"agent\"]"),
    seen("roles = [\"shop_reader\"]", "roles = [\"shop_reader\"]\nforward = [\"localhost:80\"]"),
    unseen("max_duration = \"1h\"", "max_duration = \"90d\""),
    seen("max_duration = \"30m\"", "max_duration = \"30m\"\nmax_connections = 0"),
    unseen("servicedesk.key", "short.key"),
    unseen("servicedesk.key", "open.key"),
    seen("algorithm = \"HS256\"", "algorithm = \"none\""),
    unseen("entitlements = [\"readonly\"]", "entitlements = [\"all\"]"),
    seen("version = 1", "version = "),
    seen("version = 1", "version = 1\nversion = 1"),
    seen("[gateway]", "[gateway"),
    seen("state_dir = \"state\"", "state_dir = \"\""),
    seen("state_dir = \"state\"", "state_dir = \"state\"\ninclud = [\"x\"]"),
    seen("state_dir = \"state\"", "state_dir = \"state\"\nlisten = \"127.0.0.1:22\""),
    seen("[gateway]", "gateway = \"gate\"\n[gate]"),
    seen("[ssh]\nlisten = \"127.0.0.1:2222\"\n[postgres]\nlisten = \"127.0.0.1:6432\"\n", ""),
    seen("[[user]]\nname = \"ada\"", "[[users]]\nname = \"ada\""),
    seen("[[user]]\nname = \"ada\"\ngroups = [\"platform\"]\nunix_user = \"ada\"\n[[user]]", "[user]"),
    seen("name = \"alice\"", "name = \"alice\"\nssh_key = \"x\""),
    seen("name = \"alice\"", "name = \"alice\"\nemail = \"alice@example.com\""),
    seen("groups = [\"sre\"]\nssh_keys", "groups = \"sre\"\nssh_keys"),
    unseen(
        "unix_user = \"ada\"",
        "unix_user = \"ada\"\nssh_keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ\"]",
    ),
    seen("kind = \"ssh\"", "kind = \"SSH\""),
    seen("kind = \"ssh\"\n", ""),
    seen("host_key = \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF\"\n", ""),
    seen("labels = { env = \"prod\" }", "labels = [\"prod\"]"),
    seen("labels = { env = \"prod\" }", "label = { env = \"prod\" }"),
    seen("labels = { env = \"prod\" }", "labels = { env = 1 }"),
    seen("tls_ca = \"ca.pem\"", "tls_ca = \"ca.pem\"\nsslmode = \"prefer\""),
    seen("admin_user = \"tidegate\"", "admin_user = \"tidegate\"\nadmin_password_file = \"servicedesk.key\""),
    unseen(
        "admin_user = \"tidegate\"",
        "admin_user = \"tidegate\"\nauth = \"scram\"\nadmin_password_env = \"TIDEGATE_NO_SUCH\"",
    ),
    seen("admin_user = \"tidegate\"", "admin_user = \"tidegate\"\nauth = \"scram\"\nadmin_password_env = \"a-b\""),
    unseen(
        "admin_user = \"tidegate\"",
        "admin_user = \"tidegate\"\nauth = \"scram\"\nadmin_password_file = \"empty.key\"",
    ),
    unseen(
        "admin_user = \"tidegate\"",
        "admin_user = \"tidegate\"\nauth = \"scram\"\nadmin_password_file = \"blank.key\"",
    ),
    seen("admin_user = \"tidegate\"", "admin_user = \"tidegate\"\nauth = \"password\""),
    seen("groups = [\"sre\"]\ntargets = { env", "groups = []\ntargets = { env"),
    seen("max_duration = \"1h\"", "max_duration = \"0s\""),
    seen("max_duration = \"1h\"\n", ""),
    seen("max_duration = \"1h\"", "max_duraton = \"1h\""),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nfiles = \"downloads\""),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nwatch = \"always\""),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nmfa = \"always\""),
    seen("roles = [\"shop_reader\"]\n", ""),
    seen("roles = [\"shop_reader\"]", "roles = [\"shop_reader\"]\nleftovers = \"keep\""),
    seen("roles = [\"shop_reader\"]", "roles = [\"shop_reader\"]\nmask = [\"card number\"]"),
    seen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nresults = \"all\""),
    seen("secret_file = \"servicedesk.key\"\n", ""),
    unseen("secret_file = \"servicedesk.key\"", "secret_env = \"TIDEGATE_NO_SUCH\""),
    seen("secret_file = \"servicedesk.key\"", "secret_file = \"servicedesk.key\"\nsecret_env = \"HOME\""),
    unseen("secret_file = \"servicedesk.key\"", "secret_file = \"pipe.key\""),
    seen("secret_file = \"servicedesk.key\"", "secret = \"hunter2\""),
    seen("algorithm = \"HS256\"", "algorithm = \"EdDSA\""),
    unseen("name = \"servicedesk\"", "name = \"gate\""),
    unseen("entitlements = [\"readonly\"]", "entitlements = [\"readnly\"]"),
    seen("[[issuer]]", "[[peer]]\nname = \"b\"\nurl = \"https://b.example.com:8443\"\n[[issuer]]"),
    seen("[[issuer]]", "[[peer]]\nname = \"b\"\nurl = \"http://b\"\npublic_key = \"x\"\n[[issuer]]"),
    unseen("[[issuer]]", "[[peer]]\nname = \"b\"\nurl = \"https://b\"\npublic_key = \"AAAA\"\n[[issuer]]"),
    unseen("[[issuer]]", "[[anchor]]\nname = \"a\"\n[[issuer]]"),
    seen("[[issuer]]", "[[anchor]]\nfile = \"heads\"\n[[issuer]]"),
    seen("[[issuer]]", "[[anchor]]\nname = \"a\"\nurl = \"http://x/\"\n[[issuer]]"),
    unseen("[[issuer]]", "[[anchor]]\nname = \"a\"\nfile = \"f\"\nsyslog = \"/dev/log\"\n[[issuer]]"),
    unseen("[[issuer]]", "[[anchor]]\nname = \"a\"\nfile = \"f\"\nca = \"ca.pem\"\n[[issuer]]"),
    seen("[[issuer]]", "[[anchor]]\nname = \"a\"\nsyslog = \"logs\"\n[[issuer]]"),
    unseen("[[issuer]]", "[[anchor]]\nname = \"a\"\nfile = \"f\"\nevery = \"2d\"\n[[issuer]]"),
    unseen("[[issuer]]", "[[anchor]]\nname = \"a\"\nfile = \"f\"\n[[anchor]]\nname = \"a\"\nfile = \"g\"\n[[issuer]]"),
    seen("[[issuer]]", "[[group]]\nname = \"oncall\"\n[[issuer]]"),
    unseen("[[issuer]]", "[[group]]\nname = \"a\"\ngroups = [\"a\"]\n[[issuer]]"),
    unseen(
        "[[issuer]]",
        "[[group]]\nname = \"a\"\ngroups = [\"b\"]\n[[group]]\nname = \"b\"\ngroups = [\"c\"]\n[[group]]\nname = \"c\"\ngroups = [\"a\"]\n[[issuer]]",
    ),
    unseen("[[issuer]]", "[[group]]\nname = \"a\"\ngroups = []\n[[group]]\nname = \"a\"\ngroups = []\n[[issuer]]"),
    seen(
        "[[issuer]]",
        "[[workload]]\nname = \"ci\"\nissuer = \"https://ci.example.com\"\naudience = \"gate\"\njwks_url = \"https://ci.example.com/keys\"\n[[issuer]]",
    ),
    unseen(
        "[[issuer]]",
        "[[workload]]\nname = \"ci\"\nissuer = \"https://ci.example.com\"\naudience = \"gate\"\nclaims = {}\njwks_url = \"https://ci.example.com/keys\"\n[[issuer]]",
    ),
    unseen(
        "[[issuer]]",
        "[[workload]]\nname = \"ci\"\nissuer = \"https://ci.example.com\"\naudience = \"gate\"\nclaims = { sub = \"\" }\njwks_url = \"https://ci.example.com/keys\"\n[[issuer]]",
    ),
    seen(
        "[[issuer]]",
        "[[workload]]\nname = \"ci\"\nissuer = \"https://ci.example.com\"\naudience = \"gate\"\nclaims = { sub = 7 }\njwks_url = \"https://ci.example.com/keys\"\n[[issuer]]",
    ),
    seen(
        "[[issuer]]",
        "[[workload]]\nname = \"ci\"\nissuer = \"https://ci.example.com\"\naudience = \"gate\"\nclaims = { sub = \"repo\" }\n[[issuer]]",
    ),
    unseen(
        "[[issuer]]",
        "[[workload]]\nname = \"ci\"\nissuer = \"https://ci.example.com\"\naudience = \"gate\"\nclaims = { sub = \"repo\" }\njwks_url = \"http://ci.example.com/keys\"\n[[issuer]]",
    ),
    seen(
        "[[issuer]]",
        "[[workload]]\nname = \"ci\"\nissuer = \"https://ci.example.com\"\naudience = \"gate\"\nclaims = { sub = \"repo\" }\njwks_url = \"ci.example.com\"\n[[issuer]]",
    ),
    seen(
        "[[issuer]]",
        "[[workload]]\nname = \"ci\"\nissuer = \"https://ci.example.com\"\naudience = \"gate\"\nclaims = { sub = \"repo\" }\njwks_url = \"https://ci.example.com/keys\"\njwks_file = \"keys.json\"\n[[issuer]]",
    ),
    unseen(
        "[[issuer]]",
        "[[workload]]\nname = \"ci\"\nissuer = \"https://ci.example.com\"\naudience = \"gate\"\nclaims = { sub = \"repo\" }\njwks_file = \"no.pem\"\n[[issuer]]",
    ),
    seen(
        "[[issuer]]",
        "[[workload]]\nname = \"ci\"\nissuer = \"https://ci.example.com\"\naudience = \"gate\"\nclaims = { sub = \"repo\" }\njwks_url = \"https://ci.example.com/keys\"\nalgorithms = [\"HS256\"]\n[[issuer]]",
    ),
    seen(
        "[[issuer]]",
        "[[workload]]\nname = \"ci\"\nissuer = \"https://ci.example.com\"\naudience = \"gate\"\nclaims = { sub = \"repo\" }\njwks_url = \"https://ci.example.com/keys\"\nalgorithms = []\n[[issuer]]",
    ),
    unseen(
        "[[issuer]]",
        "[[workload]]\nname = \"ci\"\nissuer = \"https://ci.example.com\"\naudience = \"gate\"\nclaims = { sub = \"repo\" }\njwks_url = \"https://ci.example.com/keys\"\nlife = \"25h\"\n[[issuer]]",
    ),
    unseen(
        "[[issuer]]",
        "[[workload]]\nname = \"alice\"\nissuer = \"https://ci.example.com\"\naudience = \"gate\"\nclaims = { sub = \"repo\" }\njwks_url = \"https://ci.example.com/keys\"\n[[issuer]]",
    ),
    unseen(
        "[[issuer]]",
        "[[workload]]\nname = \"ci\"\ngroups = [\"platform\"]\nissuer = \"https://ci.example.com\"\naudience = \"gate\"\nclaims = { sub = \"repo\" }\njwks_url = \"https://ci.example.com/keys\"\n[[issuer]]",
    ),
    seen(
        "[[issuer]]",
        "[[workload]]\nname = \"ci\"\naudience = \"gate\"\nclaims = { sub = \"repo\" }\njwks_url = \"https://ci.example.com/keys\"\n[[issuer]]",
    ),
    unseen(
        "logins = [\"deploy\"]",
        "logins = [\"deploy\"]\napprovals = [{ from = [\"leads\"] }]\nmax_duration = \"1h\"\n[[workload]]\nname = \"ci\"\ngroups = [\"leads\"]\nissuer = \"x\"\naudience = \"gate\"\nclaims = { sub = \"x\" }\njwks_url = \"https://ci.example.com/\"\n[[entitlement]]\nname = \"other\"\ngroups = [\"sre\"]\ntargets = { env = \"prod\" }\nlogins = [\"deploy\"]",
    ),
    seen("[recording]", "[oidc]\nissuer = \"https://login.example.com\"\ngroups = { Ops = \"sre\" }\n[recording]"),
    unseen(
        "[recording]",
        "[oidc]\nissuer = \"http://login.example.com\"\nclient_id = \"tidegate\"\ngroups = { Ops = \"sre\" }\n[recording]",
    ),
    seen("[recording]", "[oidc]\nissuer = \"https://login.example.com\"\nclient_id = \"tidegate\"\n[recording]"),
    unseen(
        "[recording]",
        "[oidc]\nissuer = \"https://login.example.com\"\nclient_id = \"tidegate\"\ngroups = {}\n[recording]",
    ),
    unseen(
        "[recording]",
        "[oidc]\nissuer = \"https://login.example.com\"\nclient_id = \"tidegate\"\ngroups = { Ops = \"S R E\" }\n[recording]",
    ),
    unseen(
        "[recording]",
        "[oidc]\nissuer = \"https://login.example.com\"\nclient_id = \"tidegate\"\ngroups = { Ops = \"sre\" }\nlife = \"8d\"\n[recording]",
    ),
    unseen(
        "[recording]",
        "[oidc]\nissuer = \"https://login.example.com\"\nclient_id = \"tidegate\"\ngroups = { Ops = \"sre\" }\nclient_secret_file = \"open.key\"\n[recording]",
    ),
    seen(
        "[recording]",
        "[oidc]\nissuer = \"https://login.example.com\"\nclient_id = \"tidegate\"\ngroups = { Ops = \"sre\" }\nalgorithms = [\"HS256\"]\n[recording]",
    ),
    seen(
        "[recording]",
        "[oidc]\nissuer = \"https://login.example.com\"\nclient_id = \"tidegate\"\ngroups = { Ops = \"sre\" }\nidentity = 7\n[recording]",
    ),
    unseen("name = \"alice\"", "name = \"alice\"\noidc = \"4711\""),
    seen("[[issuer]]", "[[inventory]]\nname = \"cloud\"\n[[issuer]]"),
    seen("[[issuer]]", "[[inventory]]\nname = \"cloud\"\ncommand = \"list\"\n[[issuer]]"),
    seen("[[issuer]]", "[[inventory]]\nname = \"cloud\"\ncommand = [\"list\"]\ndirectory = \"d\"\n[[issuer]]"),
    seen("[[issuer]]", "[[inventory]]\nname = \"cloud\"\ncommand = [\"list\"]\nevery = \"0s\"\n[[issuer]]"),
    seen("[[issuer]]", "[[inventory]]\nname = \"cloud\"\ndirectory = \"d\"\nenv = [\"HOME\"]\n[[issuer]]"),
    seen("[[issuer]]", "[[inventory]]\nname = \"cloud\"\ncommand = [\"list\"]\nevry = \"5m\"\n[[issuer]]"),
];

/// Each row with its text.
pub(super) fn texts() -> Vec<(Row, String)> {
    let text = |row: &Row| {
        let right = good();
        assert!(right.contains(row.right), "the table is out of date: {}", row.right);
        (*row, right.replacen(row.right, row.wrong, 1))
    };
    WRONG.iter().map(text).collect()
}

/// Files that are included, and what is wrong between them: what stands in `tidegate.toml` instead of its first line, and
/// the text of each file.
const APART: &[(&str, &[(&str, &str)])] = &[
    ("include = [\"gone.toml\"]", &[]),
    ("include = \"people.toml\"", &[("people.toml", "")]),
    ("include = [\"[\"]", &[]),
    ("include = [\"*.toml\"]", &[]),
    ("include = [\"more.d\"]", &[("more.d/a.toml", "")]),
    ("include = [\"more.d/*.toml\"]", &[("more.d/a.toml", "[[user]\nname = \"bob\"\n")]),
    ("include = [\"more.d/*.toml\"]", &[("more.d/a.toml", "[gateway]\nname = \"b\"\n")]),
    ("include = [\"more.d/*.toml\"]", &[("more.d/a.toml", "include = [\"b.toml\"]\n[[usr]]\nname = \"bob\"\n")]),
    (
        "include = [\"more.d/*.toml\"]",
        &[
            ("more.d/a.toml", "\n[[user]]\nname = \"bob\"\nssh_keys = [\"@ALICE@\"]\n"),
            ("more.d/b.toml", "[[user]]\nname = \"bob\"\n[[user]]\nname = \"ada\"\nunix_user = \"ada\"\n"),
        ],
    ),
    (
        "include = [\"more.d/*.toml\", \"z.toml\"]",
        &[
            (
                "z.toml",
                "[[entitlement]]\nname = \"dba\"\ngroups = [\"dba\"]\ntargets = [\"order\"]\ndatabases = [\"shop\"]\nroles = [\"r\"]\nmax_duration = \"1h\"\n",
            ),
            (
                "more.d/a.toml",
                "[[target]]\nname = \"db-2\"\nkind = \"postgres\"\naddress = \"db-2:5432\"\ntls_ca = \"ca.pem\"\nadmin_user = \"tidegate\"\n",
            ),
        ],
    ),
];

fn said(out: &mut String, dir: &Path, text: &str) {
    match check(dir, text) {
        Ok(_) => writeln!(out, "NO FAULT").unwrap(),
        Err(faults) => faults.iter().for_each(|fault| writeln!(out, "{fault}").unwrap()),
    }
}

#[test]
fn every_wrong_configuration_is_told_where_what_and_what_to_do() {
    let dir = folder();
    let mut out = String::new();
    for (row, text) in texts() {
        let seen = if row.seen { " (an editor sees it)" } else { "" };
        let shown =
            |text: &str| if text.is_empty() { "nothing".to_owned() } else { text.trim_end().replace('\n', "\n    ") };
        writeln!(out, "── in place of{seen}\n    {}\n── is\n    {}", shown(row.right), shown(row.wrong)).unwrap();
        said(&mut out, dir.path(), &text);
        out.push('\n');
    }
    insta::assert_snapshot!("one_file", out);
}

#[test]
fn what_is_wrong_between_files_names_both() {
    let mut out = String::new();
    for (include, files) in APART {
        let dir = folder();
        writeln!(out, "── tidegate.toml: {include}").unwrap();
        for (name, text) in *files {
            let (file, text) = (dir.path().join(name), text.replace("@ALICE@", ALICE));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &text).unwrap();
            writeln!(out, "── {name}:\n    {}", text.trim_end().replace('\n', "\n    ")).unwrap();
        }
        let text = good().replacen("version = 1", &format!("version = 1\n{include}"), 1);
        fs::write(dir.path().join("tidegate.toml"), &text).unwrap();
        said(&mut out, dir.path(), &text);
        out.push('\n');
    }
    insta::assert_snapshot!("several_files", out);
}
