//! `tidegate init`: a first configuration, the gateway's keys and an auditor's identity.
//!
//! What it writes passes `tidegate check` as it is. Nothing that is there is overwritten.

use anyhow::{Context as _, ensure};
use secrecy::ExposeSecret as _;
use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    process::ExitCode,
};
use tidegate_ca::Keys;
use tidegate_recorder::keys::generate_identity;

const CONFIG: &str = "tidegate.toml";
const STATE: &str = "state";
const IDENTITY: &str = "auditor.key";
const NAME: &str = "gate";

/// Writes all of it and says what comes next.
pub(crate) fn run(dir: &Path, state: Option<&Path>) -> anyhow::Result<ExitCode> {
    let account = crate::api::peer::account(rustix::process::getuid().as_raw());
    write(dir, state, account.as_deref())?;
    let mut out = io::stdout().lock();
    out.write_all(next_steps(dir, state).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn write(dir: &Path, elsewhere: Option<&Path>, account: Option<&str>) -> anyhow::Result<()> {
    for file in [CONFIG, IDENTITY] {
        let path = dir.join(file);
        ensure!(!path.exists(), "{} exists already, and is left as it is", path.display());
    }
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let state = elsewhere.map_or_else(|| Ok(dir.join(STATE)), std::path::absolute)?;
    DirBuilder::new().recursive(true).mode(0o711).create(&state).with_context(|| state.display().to_string())?;
    // The umask may have taken more away: local accounts must reach the socket.
    fs::set_permissions(&state, fs::Permissions::from_mode(0o711)).with_context(|| state.display().to_string())?;
    Keys::create(&state.join("keys"), NAME, jiff::Timestamp::now())?;
    let (identity, recipient) = generate_identity();
    write_new(&dir.join(IDENTITY), 0o600, &identity_file(identity.expose_secret(), &recipient))?;
    let named = elsewhere.map_or(Path::new(STATE), |_| &state).display().to_string();
    write_new(&dir.join(CONFIG), 0o644, &configuration(account, &recipient, &named))
}

fn write_new(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let shown = || path.display().to_string();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).with_context(shown)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(shown)
}

/// As age's own identity files look.
fn identity_file(identity: &str, recipient: &str) -> String {
    format!(
        "# An auditor's private key: it opens recordings. Keep it away from the gateway.\n\
         # public key: {recipient}\n{}\n",
        identity.trim_end()
    )
}

/// The person who runs `init` becomes the first admin, if their account's name can be an identity's.
fn first_admin(account: Option<&str>) -> String {
    let usable = account.filter(|name| name.parse::<tidegate_grants::IdentityName>().is_ok());
    match usable {
        Some(name) => format!(
            "[[user]]                                # you, who ran `tidegate init`: an admin, by your local account\n\
             name = \"{name}\"\n\
             groups = [\"platform\"]\n\
             unix_user = \"{name}\"\n"
        ),
        None => "# [[user]]                              # FILL IN: the first admin, by their local account\n\
                 # name = \"ada\"\n\
                 # groups = [\"platform\"]\n\
                 # unix_user = \"ada\"\n"
            .to_owned(),
    }
}

fn configuration(account: Option<&str>, recipient: &str, state: &str) -> String {
    let state = toml::Value::from(state).to_string();
    let filled = TEMPLATE.replace("@NAME@", NAME).replace("@STATE@", &state).replace("@RECIPIENT@", recipient);
    filled.replace("@ADMIN@", &first_admin(account))
}

const TEMPLATE: &str = include_str!("init.toml");

fn next_steps(dir: &Path, elsewhere: Option<&Path>) -> String {
    let shown = dir.display();
    let state = elsewhere.map_or_else(|| dir.join(STATE), Path::to_owned);
    let state = state.display();
    let option = if dir == Path::new(".") { String::new() } else { format!(" --config {shown}/{CONFIG}") };
    let start = match elsewhere {
        Some(_) => "systemctl enable --now tidegate".to_owned(),
        None => format!("tidegate serve{option}"),
    };
    format!(
        "wrote {shown}/{CONFIG}, the gateway's keys in {state}/keys, and {shown}/{IDENTITY}\n\n\
         next:\n\
         1. move {shown}/{IDENTITY} to the auditor's own machine: it opens recordings, and the gateway must not have it\n\
         2. edit {shown}/{CONFIG}: names, addresses, users, targets, entitlements (look for FILL IN)\n\
         3. tidegate check{option}\n\
         4. for each target, install what this prints: tidegate target trust NAME{option}\n\
         5. {start}\n\
         6. for people: tidegate ca show ssh-host{option}, a line for their known_hosts\n\
         7. tidegate target test NAME{option}\n\
         8. tidegate grant issue{option} --user U --target T --entitlement E --for 30m --reason WHY\n"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn what_init_writes_passes_check() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), None, Some("ada")).unwrap();
        let config = config::load(&dir.path().join(CONFIG)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.policy.gateway, NAME);
        assert_eq!(config.notes, Vec::<String>::new());
        Keys::open(&config.state_dir.join("keys")).unwrap();
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(STATE), mode("state/keys"), mode(IDENTITY)), (0o711, 0o700, 0o600));
        tidegate_recorder::keys::Identities::from_file(&dir.path().join(IDENTITY)).unwrap();
    }

    #[test]
    fn the_state_may_be_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("var \"lib\"");
        write(&dir.path().join("etc"), Some(&state), Some("ada")).unwrap();
        let config = config::load(&dir.path().join("etc").join(CONFIG)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.state_dir, state);
        Keys::open(&state.join("keys")).unwrap();
    }

    #[test]
    fn what_is_there_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), None, None).unwrap();
        let before = fs::read(dir.path().join(CONFIG)).unwrap();
        assert!(write(dir.path(), None, None).unwrap_err().to_string().contains("exists already"));
        assert_eq!(fs::read(dir.path().join(CONFIG)).unwrap(), before);
    }

    #[test]
    fn all_examples_in_the_template_pass_check_once_filled_in() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), None, Some("ada")).unwrap();
        let text = fs::read_to_string(dir.path().join(CONFIG)).unwrap();
        let key = Keys::open(&dir.path().join("state/keys")).unwrap();
        fs::write(dir.path().join("orders-ca.pem"), key.show(tidegate_ca::Part::X509).unwrap()).unwrap();
        write_new(&dir.path().join("servicedesk.key"), 0o600, &"x".repeat(32)).unwrap();
        // `#: ` marks an example line.
        let filled: String =
            text.lines().map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line))).collect();
        let user = key.show(tidegate_ca::Part::SshUser).unwrap();
        let host = key.show(tidegate_ca::Part::SshHost).unwrap();
        let filled = filled.replacen("ssh-ed25519 AAAA…", user.trim(), 1).replacen("ssh-ed25519 AAAA…", host.trim(), 1);
        let config = config::parse(&dir.path().join(CONFIG), &filled).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((config.policy.targets.len(), config.policy.entitlements.len()), (2, 3));
        assert_eq!(config.notes.len(), 2, "{:?}", config.notes);
        assert!(
            config.notes.iter().any(|note| note.contains("\"targets.d/*.toml\" matches no file")),
            "{:?}",
            config.notes
        );
    }
}
