//! The command line. What the commands do is in [`cmd`](crate::cmd).

use crate::config::duration;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{path::PathBuf, time::Duration};
use tidegate_grants::{DatabaseName, EntitlementName, IdentityName, Login, RoleName, TargetName};
use tidegate_recorder::export::Format;

/// Opens for a while and shuts by itself: approved, recorded, short-lived access to SSH hosts and PostgreSQL servers.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 gateway unreachable.")]
pub(crate) struct Cli {
    /// The configuration [default: ./tidegate.toml, then /etc/tidegate/tidegate.toml]
    #[arg(long, global = true, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a commented tidegate.toml, the gateway's keys and an auditor's identity
    Init {
        /// Where [default: here]
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Validate the configuration: every fault with its file, line and fix
    Check,
    /// Run the gateway
    Serve,
    /// Say whether the gateway is up; exit 0 when it is ready to serve
    Status {
        #[command(flatten)]
        json: Json,
    },
    /// What targets must install to trust the gateway
    #[command(subcommand)]
    Target(TargetCommand),
    /// Approved, time-bound permissions
    #[command(subcommand)]
    Grant(GrantCommand),
    /// People
    #[command(subcommand)]
    User(UserCommand),
    /// Live and past sessions
    #[command(subcommand)]
    Session(SessionCommand),
    /// What happened in sessions, for auditors
    #[command(subcommand)]
    Recording(RecordingCommand),
    /// What exists on targets now, and why
    #[command(subcommand)]
    Lease(LeaseCommand),
    /// The append-only log of every decision and effect
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Public parts of the gateway's keys
    #[command(subcommand)]
    Ca(CaCommand),
    /// (not supported yet) Bundle all that proves a session
    #[command(hide = true)]
    Evidence(Later),
    /// (not supported yet) Prove an evidence bundle offline
    #[command(hide = true)]
    Verify(Later),
    /// Put the changed configuration in force: all of it, or nothing
    Reload {
        #[command(flatten)]
        json: Json,
    },
    /// The configuration in force
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// Arguments of a command that does not work yet: any.
#[derive(Debug, Args)]
pub(crate) struct Later {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Json {
    /// Print JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say what a reload would change and which live sessions it would end; changes nothing
    Diff {
        /// The new file; - for stdin [default: the configuration file as it is now]
        file: Option<PathBuf>,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TargetCommand {
    /// Print exactly what to install on a target, with the reason for each line
    Trust {
        /// The target's name
        name: TargetName,
        /// Only this part, ready to redirect: ca, sshd_config, penalties, principals; sql, pg_hba, postgresql_conf
        #[arg(long)]
        part: Option<String>,
        /// Of `principals`, only the file of this login; needed where several logins have one
        #[arg(long, requires = "part")]
        login: Option<Login>,
    },
    /// Dial, verify the host, mint, log in, tear down; show each step, what is wrong, and the receipt
    Test {
        /// The target's name
        name: TargetName,
        /// As whom; needed where entitlements open several logins there
        #[arg(long)]
        login: Option<Login>,
        /// PostgreSQL: in which database; needed where entitlements open several there
        #[arg(long)]
        database: Option<DatabaseName>,
        /// PostgreSQL: on the terms of which entitlement (default: the first that opens the database)
        #[arg(long)]
        entitlement: Option<EntitlementName>,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GrantCommand {
    /// Issue a grant on your word as an admin; prints its id
    Issue(Issue),
    /// Take a signed grant of a trusted issuer; prints its id
    Import {
        /// The file with the token; - or none: stdin
        file: Option<PathBuf>,
    },
    /// List grants, newest first
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Show one grant
    Show {
        /// Its id, or any unique prefix or suffix
        id: String,
        #[command(flatten)]
        json: Json,
    },
    /// Revoke a grant; its live sessions end
    Revoke {
        /// Its id, or any unique prefix or suffix
        id: String,
        /// Why; the person is told
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// For whom
    #[arg(long)]
    pub(crate) user: IdentityName,
    /// On which target
    #[arg(long)]
    pub(crate) target: TargetName,
    /// Of which entitlement
    #[arg(long)]
    pub(crate) entitlement: EntitlementName,
    /// For how long from now, e.g. 30m
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Why
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// The ticket
    #[arg(long)]
    pub(crate) ticket: Option<String>,
    /// Narrowed to this login
    #[arg(long)]
    pub(crate) login: Option<Login>,
    /// Narrowed to this database
    #[arg(long)]
    pub(crate) database: Option<DatabaseName>,
    /// Narrowed to this group role; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    pub(crate) roles: Vec<RoleName>,
    /// Good for one session
    #[arg(long)]
    pub(crate) single_use: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// End all that somebody holds at once: sessions, grants, passwords. The configuration may still name them
    End {
        /// Who
        name: IdentityName,
        /// Why; they are told
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List live and past sessions, newest first
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Show one session, with its leases
    Show {
        /// Its id, or any unique prefix or suffix
        id: String,
        #[command(flatten)]
        json: Json,
    },
    /// (not supported yet)
    #[command(hide = true)]
    Watch(Later),
    /// End a live session; its grant goes on
    Kill {
        /// Its id, or any unique prefix or suffix
        id: String,
        /// Why; the person is told
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// List open leases
    List {
        /// Closed ones too; with --json, their receipts
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        json: Json,
    },
    /// Show one lease: what the target says now, why it is not closed, and the SQL to look and to finish
    Show {
        /// Its id, or any unique prefix or suffix
        id: String,
        #[command(flatten)]
        json: Json,
    },
    /// Try the teardown of a lease again now
    Retry {
        /// Its id, or any unique prefix or suffix
        id: String,
    },
    /// Close a held lease on your word: what is left with others may stay
    Accept {
        /// Its id, or any unique prefix or suffix
        id: String,
        /// Why; it is written into the ledger and the receipt
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        json: Json,
    },
    /// Look on targets for accounts with our mark and no lease; exit 1 if there are any
    Sweep {
        /// Only on this target
        #[arg(long)]
        target: Option<TargetName>,
        #[command(flatten)]
        json: Json,
    },
    /// Make a lease for an account with our mark that has none, so that it is removed; prints its id
    Adopt {
        /// Where
        #[arg(long)]
        target: TargetName,
        /// The account's name there
        name: String,
        /// Why; it is written into the ledger
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Verify the ledger and every record against it; works without a gateway
    Verify {
        /// The verification key (`tidegate ca show ledger`) [default: the state directory's]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        #[command(flatten)]
        json: Json,
    },
    /// Print the last entries
    Tail {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: u64,
        #[command(flatten)]
        json: Json,
    },
    /// Print all entries as JSON Lines
    Export,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecordingCommand {
    /// List recordings, oldest first
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Verify recordings with the public key alone; works without a gateway
    Verify {
        /// Sessions (any unique prefix or suffix of the id) or files
        #[arg(value_name = "SESSION|FILE", required_unless_present = "all")]
        recordings: Vec<String>,
        /// All of the state directory
        #[arg(long, conflicts_with = "recordings")]
        all: bool,
        /// The verification key (`tidegate ca show ledger`) [default: the state directory's]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Play a recording in this terminal
    Play {
        /// The session (any unique prefix or suffix of its id) or the file
        #[arg(value_name = "SESSION|FILE")]
        recording: String,
        /// The auditor's private key: an age identity or an OpenSSH ed25519 key
        #[arg(long, value_name = "FILE")]
        identity: PathBuf,
        /// 2 is twice as fast
        #[arg(long, default_value_t = 1.0, value_parser = speed)]
        speed: f64,
        /// No pause is longer than this many seconds
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        idle_limit: Option<Duration>,
        /// Which terminal, if the session had several [default: the first]
        #[arg(long)]
        channel: Option<u32>,
        /// The verification key (`tidegate ca show ledger`) [default: the state directory's]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Show it even if it was changed or is not by this key
        #[arg(long)]
        unverified: bool,
    },
    /// Write a recording in another format
    Export {
        /// The session (any unique prefix or suffix of its id) or the file
        #[arg(value_name = "SESSION|FILE")]
        recording: String,
        /// How
        #[arg(long)]
        format: ExportFormat,
        /// The auditor's private key: an age identity or an OpenSSH ed25519 key
        #[arg(long, value_name = "FILE")]
        identity: PathBuf,
        /// Where [default: stdout]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// What the person typed too: it may hold passwords
        #[arg(long)]
        keystrokes: bool,
        /// Which terminal, for asciicast [default: the first]
        #[arg(long)]
        channel: Option<u32>,
        /// The verification key (`tidegate ca show ledger`) [default: the state directory's]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Show it even if it was changed or is not by this key
        #[arg(long)]
        unverified: bool,
    },
    /// (not supported yet) Find text in recordings
    #[command(hide = true)]
    Search(Later),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// asciicast version 3, for asciinema
    Asciicast,
    /// asciicast version 2
    AsciicastV2,
    /// JSON Lines
    Jsonl,
    /// An SQL script with comments
    Sql,
    /// Plain text
    Text,
}

impl From<ExportFormat> for Format {
    fn from(format: ExportFormat) -> Self {
        match format {
            ExportFormat::Asciicast => Self::Asciicast,
            ExportFormat::AsciicastV2 => Self::AsciicastV2,
            ExportFormat::Jsonl => Self::Jsonl,
            ExportFormat::Sql => Self::Sql,
            ExportFormat::Text => Self::Text,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Print one public part, ready to redirect
    Show {
        /// Which
        part: CaPart,
    },
    /// (not supported yet)
    #[command(hide = true)]
    Rotate(Later),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CaPart {
    /// OpenSSH public key line of the CA that signs session certificates
    SshUser,
    /// OpenSSH public key line of the CA that signs the gateway's host certificate
    SshHost,
    /// OpenSSH public key line of the gateway's own host key, for clients that know no host CAs
    SshHostKey,
    /// PEM certificate of the CA for TLS
    X509,
    /// PEM certificate of the CA for people's own certificates (`ssh gate cert`)
    X509People,
    /// Verification key of ledger and recordings
    Ledger,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.01..=1000.0).contains(&speed) => Ok(speed),
        _ => Err("not a number between 0.01 and 1000".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "not a number of seconds".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_of_the_contract_parse() {
        for line in [
            "tidegate init",
            "tidegate init /tmp/x",
            "tidegate check --config f.toml",
            "tidegate --config f.toml check",
            "tidegate serve",
            "tidegate status --json",
            "tidegate target trust web-1 --part sshd_config",
            "tidegate target test web-1 --login deploy --json",
            "tidegate grant issue --user alice --target web-1 --entitlement shell --for 30m --reason R",
            "tidegate grant import",
            "tidegate grant import -",
            "tidegate grant list --json",
            "tidegate grant show 01234567 --json",
            "tidegate grant revoke 01234567 --reason done",
            "tidegate session list --json",
            "tidegate session show 0123 --json",
            "tidegate session kill 0123 --reason enough",
            "tidegate recording list --json",
            "tidegate recording verify --all",
            "tidegate recording verify a.tgr b.tgr",
            "tidegate recording play 0123 --identity f --speed 2 --idle-limit 0.5",
            "tidegate recording export 0123 --format sql --identity f -o out.sql",
            "tidegate recording export 0123 --format asciicast --identity f --keystrokes",
            "tidegate recording search x",
            "tidegate lease list --all --json",
            "tidegate lease retry 0123",
            "tidegate lease show 0123 --json",
            "tidegate lease accept 0123 --reason known",
            "tidegate lease sweep --target orders --json",
            "tidegate lease adopt --target orders tg_alice_aaaaaaaa --reason restored",
            "tidegate ledger verify",
            "tidegate ledger tail -n 5 --json",
            "tidegate ledger export",
            "tidegate ca show ssh-user",
            "tidegate ca show ledger",
            "tidegate ca show x509-people",
            "tidegate ca rotate",
            "tidegate evidence 0123 -o f",
            "tidegate verify f",
            "tidegate reload",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for line in [
            "tidegate nonsense",
            "tidegate lease accept 0123",
            "tidegate lease adopt tg_x --reason r",
            "tidegate recording verify",
            "tidegate recording play 0123",
            "tidegate recording play 0123 --identity f --speed 0",
            "tidegate recording export 0123 --format mp4 --identity f",
            "tidegate grant issue --user Alice --target web-1 --entitlement shell --for 30m",
            "tidegate grant issue --user alice --target web-1 --entitlement shell --for 30",
            "tidegate grant issue --user alice --target web-1 --entitlement shell",
            "tidegate target trust a/b",
            "tidegate ca show grants",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
