//! The commands, one file per group. Each prints its result on stdout; what went wrong is one plain line on stderr.

mod access;
mod add;
mod backup;
mod ca;
mod cef;
mod check;
mod clock;
mod doctor;
mod evidence;
mod export;
mod grant;
mod keeping;
mod lease;
mod ledger;
mod live;
mod lock;
mod mfa;
mod needles;
mod notify;
mod pages;
mod play;
mod policy;
mod recording;
mod reindex;
mod request;
mod review;
mod search;
mod session;
mod status;
mod target;
mod token;
mod user;
mod verify;
mod why;

use crate::{
    api::{
        TestBody,
        client::{Client, Wrong},
        remote::Remote,
    },
    backup::With,
    cli::{
        self, CaCommand, Cli, ClockCommand, Command, ConfigCommand, Rotated, SessionCommand, TargetCommand, UserCommand,
    },
    config, init, serve,
    text::plain,
};
use anyhow::{Context as _, ensure};
use std::{
    fs::File,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Runs one command.
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let (named, remote) = (cli.config.as_deref(), cli.remote);
    let client = || client(named, &remote);
    match cli.command {
        Command::Init { dir, state } => init::run(dir.as_deref().unwrap_or(Path::new(".")), state.as_deref()),
        Command::Check { inventory } => check::run(named, inventory),
        Command::Serve { keys } => serve::run(&config::locate(named)?, keys.as_deref()),
        Command::Status { json } => status::run(&client()?, json.json),
        Command::Target(TargetCommand::Trust { name, part, login }) => {
            target::trust(named, &name, part.as_deref(), login.as_ref())
        }
        Command::Target(TargetCommand::Add(new)) => add::target(&config::locate(named)?, &new),
        Command::Target(TargetCommand::Test { name, login, database, entitlement, json }) => {
            let body = TestBody { login, database, entitlement };
            target::test(&client()?, &name, &body, json.json)
        }
        Command::Grant(command) => grant::run(&client()?, command),
        Command::Policy(command) => policy::run(named, command),
        Command::Request(command) => request::run(&client()?, command),
        Command::Review(command) => review::run(&client()?, command),
        Command::User(UserCommand::Add(new)) => add::user(&config::locate(named)?, &new),
        Command::User(UserCommand::Mfa(command)) => mfa::run(&client()?, command),
        Command::User(UserCommand::End { name, reason, json }) => user::end(&client()?, &name, reason, json.json),
        Command::Token(command) => token::run(&client()?, command),
        Command::Notify(command) => notify::run(&client()?, command),
        Command::Access(command) => access::run(&client()?, command),
        Command::Lock(command) => lock::run(&client()?, command),
        Command::Session(SessionCommand::List { json }) => session::list(&client()?, json.json),
        Command::Session(SessionCommand::Show { id, json }) => session::show(&client()?, &id, json.json),
        Command::Session(SessionCommand::Watch { id }) => session::watch(&client()?, &id),
        Command::Session(SessionCommand::Kill { id, reason }) => session::kill(&client()?, &id, reason),
        Command::Recording(command) => recording::run(named, &remote, command),
        Command::Lease(command) => lease::run(&client()?, command),
        Command::Ledger(command) => ledger::run(named, command),
        Command::Ca(CaCommand::Show { part }) => ca::show(named, part),
        Command::Ca(CaCommand::Rotate { part: Rotated::Mfa, drop_old }) => ca::rotate_mfa(named, drop_old),
        Command::Evidence(arguments) => evidence::run(named, &arguments),
        Command::Verify(arguments) => verify::run(named, &arguments),
        Command::Reload { json } => live::reload(&client()?, json.json),
        Command::Config(ConfigCommand::Schema { included }) => {
            print(&format!("{:#}\n", config::schema::schema(included)))
        }
        Command::Why { reference, json } => why::run(&client()?, &reference, json.json),
        Command::Doctor { json } => doctor::run(named, json.json),
        Command::Clock(ClockCommand::Accept { reason }) => clock::accept(&client()?, reason),
        Command::Backup { file, with_keys, with_recordings } => {
            backup::make(named, &file, With { keys: with_keys, recordings: with_recordings })
        }
        Command::Restore { file, into, identity } => backup::restore(&file, &into, identity.as_deref()),
        Command::Config(ConfigCommand::Diff { file, json }) => {
            live::diff(&client()?, &file.map_or_else(|| config::locate(named), Ok)?, json.json)
        }
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { dir } => pages::man(&dir),
    }
}

/// Says what went wrong, in one line unless it is a list of faults, and gives the exit code.
pub(crate) fn complain(error: &anyhow::Error) -> ExitCode {
    if error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe))
    {
        // `tidegate … | head`: nobody is listening any more.
        return ExitCode::from(1);
    }
    if let Some(config::ConfigError::Faults(faults)) = error.downcast_ref() {
        let (faults, whole) = (faults.to_string(), error.to_string());
        say_error(&faults);
        if whole != faults {
            say_error(&plain(&format!("tidegate: {whole}")));
        }
        return ExitCode::from(1);
    }
    if let Some(Wrong(faults)) = error.downcast_ref() {
        faults.iter().for_each(|fault| say_error(&plain(fault)));
        return ExitCode::from(1);
    }
    say_error(&plain(&format!("tidegate: {error:#}")));
    let unreachable = error.downcast_ref::<crate::api::client::Unreachable>().is_some();
    ExitCode::from(if unreachable { 3 } else { 1 })
}

fn say_error(line: &str) {
    // Nobody is left to tell if stderr is gone.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints to stdout.
pub(crate) fn print(text: &str) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Prints as JSON, pretty, with a newline.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<ExitCode> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// What a file of the command line is called: `-` is stdin.
fn named(file: &Path) -> String {
    if file == Path::new("-") { "stdin".to_owned() } else { file.display().to_string() }
}

/// The text of a file, or of stdin; `what` it would be if it were at most `most` bytes long.
fn text_of(file: &Path, most: usize, what: &str) -> anyhow::Result<String> {
    let input: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(file).with_context(|| named(file))?),
    };
    let mut text = String::new();
    let read = input.take(u64::try_from(most)? + 1).read_to_string(&mut text).with_context(|| named(file))?;
    ensure!(read <= most, "{}: too long to be {what}", named(file));
    Ok(text)
}

/// Where the state of the configured gateway is.
fn state_dir(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    Ok(config::state_dir(&config::locate(named)?)?)
}

/// Speaks to the running gateway: the one far off that is named, else the configured one.
fn client(named: Option<&Path>, remote: &cli::Remote) -> anyhow::Result<Client> {
    let Some(url) = &remote.gateway else { return Ok(Client::new(&state_dir(named)?)?) };
    Ok(Client::remote(Remote::new(url, remote.token_file.as_deref(), remote.ca.as_deref())?)?)
}

/// The key that proves ledger and recordings: from a file, else from the state directory.
fn verification_key(state: &Path, file: Option<&Path>) -> anyhow::Result<ed25519_dalek::VerifyingKey> {
    use ed25519_dalek::pkcs8::DecodePublicKey as _;
    let Some(file) = file else {
        let keys = tidegate_ca::Keys::open(&state.join("keys"))?;
        return Ok(keys.ledger.verifying_key());
    };
    let pem = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let key = ed25519_dalek::VerifyingKey::from_public_key_pem(pem.trim()).ok();
    key.with_context(|| format!("{}: not a verification key as `tidegate ca show ledger` prints it", file.display()))
}

/// A moment of the log as people read it: RFC 3339, UTC, whole seconds.
fn moment(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The last 8 digits of an id, as lists show it.
fn short(id: &str) -> String {
    let digits: Vec<char> = id.chars().filter(char::is_ascii_hexdigit).collect();
    digits.iter().skip(digits.len().saturating_sub(8)).collect()
}
