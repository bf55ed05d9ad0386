//! The command line. What the commands do is in [`cmd`](crate::cmd).

mod access;
mod lock;
mod mfa;
mod notify;
mod policy;
mod recording;
mod request;
mod review;

pub(crate) use access::AccessCommand;
pub(crate) use lock::{AddLock, LockCommand};
pub(crate) use mfa::MfaCommand;
pub(crate) use notify::NotifyCommand;
pub(crate) use policy::PolicyCommand;
pub(crate) use recording::{Export, Hold, Play, RecordingCommand, Reindex, Search};
pub(crate) use request::{Ask, RequestCommand};
pub(crate) use review::ReviewCommand;

use crate::config::duration;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{path::PathBuf, time::Duration};
use tidegate_grants::{
    DatabaseName, EntitlementName, GroupName, IdentityName, Login, RoleName, TargetName, TokenScope,
};

/// Opens for a while and shuts by itself: approved, recorded, short-lived access to SSH hosts and PostgreSQL servers.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 gateway unreachable.")]
pub(crate) struct Cli {
    /// The configuration [default: ./tidegate.toml, then /etc/tidegate/tidegate.toml]
    #[arg(long, global = true, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A gateway far off, for the commands that ask a running gateway.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Remote {
    /// Ask this gateway over HTTPS, with a token [default: the one of the configuration, over its socket]
    #[arg(long, global = true, value_name = "URL", env = "TIDEGATE_GATEWAY")]
    pub(crate) gateway: Option<String>,
    /// The file with the token, for you alone (mode 0600) [default: $TIDEGATE_TOKEN]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Who signs the gateway's certificate, PEM (`tidegate ca show x509`) [default: the system's authorities]
    #[arg(long, global = true, value_name = "FILE", env = "TIDEGATE_CA")]
    pub(crate) ca: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a commented tidegate.toml, the gateway's keys and an auditor's identity
    Init {
        /// Where [default: here]
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
        /// The state directory [default: DIR/state]
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
    /// Validate the configuration: every fault with its file, line and fix
    Check {
        /// Look at what inventories list now, too: their programs run
        #[arg(long)]
        inventory: bool,
    },
    /// Run the gateway
    Serve {
        /// Where its keys are, as systemd's LoadCredential= hands them over [default: in the state directory]
        #[arg(long, value_name = "DIR")]
        keys: Option<PathBuf>,
    },
    /// Say whether the gateway is up; exit 0 when it is ready to serve
    Status {
        #[command(flatten)]
        json: Json,
    },
    /// Targets: add one, what it must install to trust the gateway, and whether all of it works
    #[command(subcommand)]
    Target(TargetCommand),
    /// Approved, time-bound permissions
    #[command(subcommand)]
    Grant(GrantCommand),
    /// What the configuration says to whom, without a gateway
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Ask for grants, and answer who asks
    #[command(subcommand)]
    Request(RequestCommand),
    /// What was done without anybody's approval, and who has looked at it since
    #[command(subcommand)]
    Review(ReviewCommand),
    /// People
    #[command(subcommand)]
    User(UserCommand),
    /// What proves a program's identity to the HTTPS API
    #[command(subcommand)]
    Token(TokenCommand),
    /// Live and past sessions
    #[command(subcommand)]
    Session(SessionCommand),
    /// What is shut, whatever grants say
    #[command(subcommand)]
    Lock(LockCommand),
    /// Who is told what happens
    #[command(subcommand)]
    Notify(NotifyCommand),
    /// Who may what, who holds what, and who uses it: for reviews
    #[command(subcommand)]
    Access(AccessCommand),
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
    /// Put all that proves a session into one file; `tidegate verify` proves it elsewhere
    Evidence(Evidence),
    /// Prove files offline, with the public key alone: recordings, directories of them, exports of the ledger, evidence
    #[command(after_help = "Exit codes: 0 all intact, 1 something was changed or is not by this key, 2 wrong usage, \
                            4 nothing was changed, but a recording breaks off.")]
    Verify(Verify),
    /// Put the changed configuration in force: all of it, or nothing
    Reload {
        #[command(flatten)]
        json: Json,
    },
    /// The configuration in force
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look for what is wrong or will be soon, and say what to do; exit 1 if something fails
    Doctor {
        #[command(flatten)]
        json: Json,
    },
    /// The gateway's clock
    #[command(subcommand)]
    Clock(ClockCommand),
    /// Write the store as it is at this moment into a file, also while the gateway serves
    Backup {
        /// Which must not exist yet
        file: PathBuf,
        /// The gateway's keys too, sealed for the auditors' keys
        #[arg(long)]
        with_keys: bool,
        /// Recordings too
        #[arg(long)]
        with_recordings: bool,
    },
    /// Put a backup into a new state directory; its grants are revoked when a gateway starts there
    Restore {
        /// What `backup` wrote
        file: PathBuf,
        /// A directory that does not exist yet, or is empty
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
        /// An auditor's private key, to open the gateway's keys in it
        #[arg(long, value_name = "FILE")]
        identity: Option<PathBuf>,
    },
    /// Print what makes a shell complete these commands
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual's pages, one for each command
    Man {
        /// Into which directory
        dir: PathBuf,
    },
    /// Say why somebody was refused, and what would change it
    Why {
        /// What they were told, like 7K3F-9Q2M
        #[arg(value_name = "REF")]
        reference: String,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Evidence {
    /// The session (any unique prefix or suffix of its id)
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
    /// Where: a file that does not exist yet
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Leave the recording out: its seal stays, and proves a copy of it
    #[arg(long)]
    pub(crate) redact: bool,
    /// Prove the entries by a head that went to this anchor: its file proves them too, then; may be repeated
    #[arg(long = "anchor", value_name = "FILE")]
    pub(crate) anchors: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// What to prove
    #[arg(value_name = "FILE|DIR", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// The verification key (`tidegate ca show ledger`) [default: the state directory's]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// An export of the ledger must have the heads that this anchor's file has; may be repeated
    #[arg(long = "anchor", value_name = "FILE")]
    pub(crate) anchors: Vec<PathBuf>,
    /// Every head of the anchor must be countersigned by the gateway that this is the verification key of, or by one of them; may be repeated
    #[arg(long = "witness", value_name = "FILE")]
    pub(crate) witnesses: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Json {
    /// Print JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClockCommand {
    /// Say that the clock is right now, though the ledger has later times: things open again
    Accept {
        /// Why; it is written into the ledger
        #[arg(long)]
        reason: String,
    },
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
    /// Print the JSON Schema of the configuration, for editors
    Schema {
        /// Of a file that it includes
        #[arg(long)]
        included: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TargetCommand {
    /// Write a target into the configuration; comments and order stay
    Add(AddTarget),
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
    /// Ask for more time under a grant of yours; its live sessions go on. Prints the request's id
    Extend {
        /// Its id, or any unique prefix or suffix
        id: String,
        /// For how long from the last approval, e.g. 30m [default: as long as the entitlement allows]
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        duration: Option<Duration>,
        /// Why [default: as it was]
        #[arg(long)]
        reason: Option<String>,
        /// The ticket [default: as it was]
        #[arg(long)]
        ticket: Option<String>,
    },
    /// Hand a grant of yours back; its live sessions end, and whoever waits for it goes on
    Return {
        /// Its id, or any unique prefix or suffix
        id: String,
        /// Take back somebody else's, as one who approves it or as an admin
        #[arg(long, requires = "reason")]
        force: bool,
        /// Why; the person is told
        #[arg(long)]
        reason: Option<String>,
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

#[derive(Debug, Args)]
pub(crate) struct AddTarget {
    /// The name to give it
    pub(crate) name: TargetName,
    /// What it is
    pub(crate) kind: TargetKind,
    /// Where it is [default port: 22, or 5432]
    #[arg(value_name = "HOST[:PORT]")]
    pub(crate) address: String,
    /// A label that entitlements can choose it by; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// ssh: its host key, the line of its ssh_host_ed25519_key.pub, or that file
    #[arg(long, value_name = "KEY|FILE", conflicts_with = "fingerprint")]
    pub(crate) host_key: Option<String>,
    /// ssh: take the host key that it shows if it has this fingerprint, as `ssh-keygen -lf` prints it
    #[arg(long, value_name = "SHA256:…")]
    pub(crate) fingerprint: Option<String>,
    /// postgres: the PEM file with the CA of its certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// postgres: the gateway's own login there [default: tidegate]
    #[arg(long, value_name = "ROLE")]
    pub(crate) admin_user: Option<RoleName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetKind {
    /// An SSH host
    Ssh,
    /// A PostgreSQL server
    Postgres,
}

#[derive(Debug, Args)]
pub(crate) struct AddUser {
    /// Who it is
    pub(crate) name: IdentityName,
    /// A file with their public key, or - for stdin; may be repeated
    #[arg(long = "ssh-key", value_name = "FILE|-")]
    pub(crate) ssh_keys: Vec<PathBuf>,
    /// The groups that they are in
    #[arg(long, value_name = "GROUP,…", value_delimiter = ',')]
    pub(crate) groups: Vec<GroupName>,
    /// This local account, on the gateway's Unix socket, is this user
    #[arg(long, value_name = "ACCOUNT")]
    pub(crate) unix_user: Option<String>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| "write it like env=prod".to_owned())
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Write a user into the configuration; comments and order stay
    Add(AddUser),
    /// Second factors
    #[command(subcommand)]
    Mfa(MfaCommand),
    /// End all that somebody holds at once: sessions, grants, passwords, tokens. The configuration may still name them
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
pub(crate) enum TokenCommand {
    /// Make a token; prints its secret, this once. On the gateway's own host: no token makes a token
    Issue {
        /// Whose it is; admins for anyone, others for themselves [default: yours]
        #[arg(long)]
        user: Option<IdentityName>,
        /// For how long from now, e.g. 30d
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        duration: Duration,
        /// How far it goes: read; grants (read, and issue, import, revoke and request them); all that the user may do
        #[arg(long)]
        scope: TokenScope,
        /// What it is for, in a word or two
        #[arg(long, default_value = "")]
        label: String,
    },
    /// List tokens, newest first: admins and auditors all, others their own
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Revoke a token
    Revoke {
        /// Its id, or any unique prefix or suffix
        id: String,
        /// Why
        #[arg(long)]
        reason: Option<String>,
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
    /// Watch a live session, for auditors: what is seen in it, and not what is typed; Ctrl-C ends the watching
    Watch {
        /// Its id, or any unique prefix or suffix
        id: String,
    },
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
        /// It must also have the heads that this anchor's file has: an older store that was put back is found; may be repeated
        #[arg(long = "anchor", value_name = "FILE")]
        anchors: Vec<PathBuf>,
        /// Every head of the anchor must be countersigned by the gateway that this is the verification key of, or by one of them; may be repeated
        #[arg(long = "witness", value_name = "FILE")]
        witnesses: Vec<PathBuf>,
        #[command(flatten)]
        json: Json,
    },
    /// Print the last entries
    Tail {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: u64,
        /// Go on with what is entered from now on
        #[arg(short = 'f', long)]
        follow: bool,
        #[command(flatten)]
        json: Json,
    },
    /// Print all entries
    Export {
        /// How
        #[arg(long, default_value = "jsonl")]
        format: LedgerFormat,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LedgerFormat {
    /// JSON Lines, with the signed heads at the end: `tidegate verify` proves it
    Jsonl,
    /// ArcSight's Common Event Format, for a SIEM
    Cef,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Print one public part, ready to redirect
    Show {
        /// Which
        part: CaPart,
    },
    /// Make a new key: of what seals second factors (no other part can be rotated yet)
    Rotate {
        /// Which
        part: Rotated,
        /// Drop the older ones instead, once the gateway was restarted and has sealed all anew
        #[arg(long)]
        drop_old: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rotated {
    /// What seals the seeds of second factors
    Mfa,
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
