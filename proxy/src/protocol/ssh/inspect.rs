//! What a session left running on an SSH target, as far as its login can see.
//!
//! sshd gives every process of a session `SSH_CONNECTION=OUR-ADDRESS OUR-PORT …`, and children inherit it, whatever
//! `nohup` and `setsid` do. So the look-up reads `/proc/PID/environ` of every process that the login may read.

use super::{
    SshTarget,
    flow::Item,
    hearing::FromTarget,
    lease::Noted,
    line::plain,
    target::{self, Opening, TargetConnection},
};
use crate::issuer::{TARGET_DEADLINE, TargetError};
use std::{collections::BTreeSet, time::Duration};
use tidegate_grants::lease::Finding;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

/// The certificate's forced command, always this one: what to look for comes on its stdin, so that no command line is
/// ever built. One line, without a single quote or an exclamation mark inside, so that csh and fish take it too.
pub(super) const SCRIPT: &str = concat!(
    "exec /bin/sh -c '",
    r#"[ -r /proc/self/environ ] || { echo tidegate-blind; exit 0; }; echo tidegate-looked; "#,
    r#"grep -lFf - /proc/[0-9]*/environ 2>/dev/null | while IFS=/ read -r a b pid c; do "#,
    r#"printf "%s " "$pid"; tr "\000\n" "  " < "/proc/$pid/cmdline" 2>/dev/null | cut -c 1-200; echo; done"#,
    "'"
);

/// Answers longer than this are cut.
const LONGEST_ANSWER: usize = 64 << 10;
/// More leftovers than this are counted, not named.
const MOST_ITEMS: usize = 50;
/// A hang-up takes a moment: processes that are gone by then were not left behind.
const LOOKS: usize = 5;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Leftovers {
    /// `PID COMMAND` each, control characters escaped.
    Seen(BTreeSet<String>),
    /// The target has no `/proc` that the login may read.
    Blind,
    /// The login ran something else than the look-up.
    NoAnswer,
    /// The login was let in, but its shell did not answer, time and again.
    Silent,
}

impl Leftovers {
    pub(super) fn finding(&self) -> Option<Finding> {
        let Self::Seen(processes) = self else { return None };
        Some(Finding {
            what: "processes of the session".to_owned(),
            found: processes.len().try_into().unwrap_or(u64::MAX),
            items: processes.iter().take(MOST_ITEMS).cloned().collect(),
        })
    }

    pub(super) fn unverifiable(&self, login: &str) -> Vec<String> {
        let mut lines = match self {
            Self::Seen(_) => vec![format!(
                "processes of the session that cleared their environment or run as another user: {login} cannot see them"
            )],
            Self::Blind => vec![format!("processes of the session: {login} cannot read /proc on the target")],
            Self::NoAnswer => {
                vec![format!("processes of the session: the shell of {login} did not run the look-up")]
            }
            Self::Silent => vec![format!(
                "processes of the session: the shell of {login} did not answer, so nothing is known of any that are left"
            )],
        };
        // Whoever had the session can have made these say "nothing left".
        lines.push(format!(
            "the look-up: what it says comes through the shell and the start-up files of {login}, which {login} can change"
        ));
        lines.push(format!("files, crontabs and units: {login} is shared, so nobody can say whose they are"));
        lines
    }
}

/// A connection whose own address is none of those looked for: ports come round again.
pub(super) async fn dial_apart(target: &SshTarget, connections: &[Noted]) -> Result<TcpStream, TargetError> {
    let mut stream = target::dial(target).await?;
    for _ in 0..3 {
        let local = stream.local_addr().ok();
        if !connections.iter().any(|noted| Some(noted.local) == local) {
            return Ok(stream);
        }
        let other = target::dial(target).await?; // while the first one still has its port
        stream = other;
    }
    Ok(stream)
}

/// Looks until nothing is left or the moment of grace is over.
pub(super) async fn look(
    target: &SshTarget,
    connection: &TargetConnection,
    connections: &[Noted],
) -> Result<Leftovers, TargetError> {
    let mut needles = String::new();
    for noted in connections {
        let ip = noted.local.ip().to_canonical();
        needles.push_str(&format!("SSH_CONNECTION={ip} {} \n", noted.local.port()));
    }
    let unreachable =
        |cause: &str| TargetError::Unreachable { target: target.name.to_string(), cause: cause.to_owned() };
    for look in 1.. {
        let answer = timeout(TARGET_DEADLINE, ask(connection, needles.clone()))
            .await
            .map_err(|_| unreachable("it did not answer what the session left"))?
            .map_err(|error| unreachable(&error.to_string()))?;
        let leftovers = read(&answer);
        let quiet = !matches!(&leftovers, Leftovers::Seen(processes) if !processes.is_empty());
        if quiet || look == LOOKS {
            return Ok(leftovers);
        }
        sleep(PAUSE).await;
    }
    Err(unreachable("it was not asked"))
}

/// One run of the script.
async fn ask(connection: &TargetConnection, needles: String) -> Result<Vec<u8>, russh::Error> {
    let write = connection.open(&Opening::Program).await?;
    write.exec(false, "tidegate").await?; // the forced command runs in its place
    write.data_bytes(needles.into_bytes()).await?;
    write.eof().await?;
    let mut answer = Vec::new();
    loop {
        match connection.down.pop().await {
            Item::Data { extended, bytes } => {
                if extended.is_none() && answer.len() < LONGEST_ANSWER {
                    answer.extend_from_slice(&bytes);
                }
                connection.down.settle(bytes.len());
            }
            Item::Event(FromTarget::Close | FromTarget::Gone) => return Ok(answer),
            Item::Event(_) => {}
            Item::Overrun => return Err(russh::Error::Inconsistent),
        }
    }
}

fn read(answer: &[u8]) -> Leftovers {
    let text = String::from_utf8_lossy(answer);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    // A login's start-up files may say something first.
    loop {
        match lines.next() {
            Some("tidegate-looked") => break,
            Some("tidegate-blind") => return Leftovers::Blind,
            Some(_) => {}
            None => return Leftovers::NoAnswer,
        }
    }
    let process = |line: &str| {
        let pid = line.split(' ').next().unwrap_or_default();
        (!pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()))
            .then(|| plain(&line.chars().take(220).collect::<String>()))
    };
    Leftovers::Seen(lines.filter_map(process).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_receipt_always_says_through_whom_its_answer_came() {
        let seen = Leftovers::Seen(BTreeSet::new());
        for leftovers in [seen, Leftovers::Blind, Leftovers::NoAnswer, Leftovers::Silent] {
            let lines = leftovers.unverifiable("deploy");
            assert!(lines.iter().any(|line| line.contains("start-up files of deploy")), "{lines:?}");
        }
        let silent = Leftovers::Silent.unverifiable("deploy");
        assert!(silent.iter().any(|line| line.contains("nothing is known")), "{silent:?}");
    }

    #[test]
    fn an_answer_is_read_without_trusting_it() {
        let answer = b"Welcome!\ntidegate-looked\n12 sleep 5 \n\n13 x\x1b[2Jy\nnot-a-pid\n";
        let Leftovers::Seen(seen) = read(answer) else { panic!("not seen") };
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["12 sleep 5", "13 x\\u{1b}[2Jy"]);
        assert_eq!(read(b"tidegate-blind\n"), Leftovers::Blind);
        assert_eq!(read(b"This account is not available.\n"), Leftovers::NoAnswer);
        assert_eq!(read(b""), Leftovers::NoAnswer);
    }

    /// The script itself, under the shell of this machine, with a process that has the address in its environment and
    /// one that has another.
    #[test]
    fn the_script_names_a_process_that_carries_the_connection() {
        use std::io::Write;
        let sleeper =
            |connection: &str| Command::new("sleep").arg("30").env("SSH_CONNECTION", connection).spawn().unwrap();
        let mut ours = sleeper("192.0.2.7 40001 192.0.2.9 22");
        let mut other = sleeper("192.0.2.7 4000 192.0.2.9 22");
        let mut shell =
            Command::new("/bin/sh").args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        shell.stdin.take().unwrap().write_all(b"SSH_CONNECTION=192.0.2.7 40001 \n").unwrap();
        let output = shell.wait_with_output().unwrap();
        let found = read(&output.stdout);
        let pid = ours.id();
        for child in [&mut ours, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let Leftovers::Seen(seen) = found else { panic!("{found:?}") };
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [format!("{pid} sleep 30")]);
    }
}
