//! What a login can say of its own host: the clock, who it is, and what `sshd -T` makes of the configuration files there.
//!
//! `sshd -T` wants a host key that it may read, and the login may read none. So it gets one on its stdin that is made for
//! this, is no host's, and never touches a disk. What comes back is the word of whoever has the login.

use super::{
    flow::Item,
    hearing::FromTarget,
    line::plain,
    target::{Opening, TargetConnection},
};
use russh::keys::{
    Algorithm, PrivateKey,
    ssh_key::{LineEnding, getrandom::SysRng, rand_core::UnwrapErr},
};
use std::collections::BTreeMap;

/// One line, without a single quote or an exclamation mark inside, so that csh and fish take it too.
const SCRIPT: &str = concat!(
    "exec /bin/sh -c '",
    r#"echo tidegate-answers; date +%s; id -un; PATH="$PATH:/usr/sbin:/usr/local/sbin:/sbin"; echo tidegate-settings; "#,
    r#"cat | sshd -T -h /dev/stdin -C "user=$(id -un),host=gate,addr=${SSH_CONNECTION%% *}" 2>/dev/null && echo tidegate-end"#,
    "'"
);

/// Longer answers are cut.
const LONGEST: usize = 64 << 10;

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The command was run, and not something else.
    pub(super) answered: bool,
    /// What was said instead.
    pub(super) first_line: Option<String>,
    /// Its clock, in seconds since 1970.
    pub(super) second: Option<i64>,
    /// Its name there.
    pub(super) login: Option<String>,
    /// `sshd -T` for this login, where its files can be read.
    pub(super) settings: Option<Settings>,
}

/// Settings of sshd by their names in lower case, each with its words in order.
#[derive(Debug, Default)]
pub(super) struct Settings(BTreeMap<String, Vec<String>>);

/// Runs it.
pub(super) async fn ask(connection: &TargetConnection) -> Result<Vec<u8>, russh::Error> {
    let key = PrivateKey::random(&mut UnwrapErr(SysRng), Algorithm::Ed25519)?.to_openssh(LineEnding::LF)?;
    let write = connection.open(&Opening::Program).await?;
    write.exec(false, SCRIPT).await?;
    write.data_bytes(key.as_bytes().to_vec()).await?;
    write.eof().await?;
    let mut answer = Vec::new();
    loop {
        match connection.down.pop().await {
            Item::Data { bytes, .. } => {
                if answer.len() < LONGEST {
                    answer.extend_from_slice(&bytes);
                }
                connection.down.settle(bytes.len());
            }
            Item::Event(FromTarget::Close) => return Ok(answer),
            Item::Event(_) => {}
            Item::Overrun => return Err(russh::Error::Inconsistent),
        }
    }
}

impl Survey {
    /// Whatever it is.
    pub(super) fn read(answer: &[u8]) -> Self {
        let text = String::from_utf8_lossy(answer);
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let short = |line: &str| plain(&line.chars().take(200).collect::<String>());
        let first_line = text.lines().map(str::trim).find(|line| !line.is_empty()).map(short);
        if !lines.any(|line| line == "tidegate-answers") {
            return Self { first_line, ..Self::default() };
        }
        let second = lines.next().and_then(|line| line.parse().ok());
        let login = lines.next().map(short);
        let rest: Vec<&str> = lines.skip_while(|line| *line != "tidegate-settings").skip(1).collect();
        let settings = match rest.split_last() {
            Some((&"tidegate-end", settings)) => Some(Settings::read(settings)),
            _ => None, // not readable, or no sshd where one is looked for
        };
        Self { answered: true, first_line, second, login, settings }
    }
}

impl Settings {
    fn read(lines: &[&str]) -> Self {
        let mut settings: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in lines {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            settings.entry(key.to_ascii_lowercase()).or_default().extend(words(value));
        }
        Self(settings)
    }

    /// Where it is not as it should be, one sentence each. A setting that this sshd does not know is no difference.
    pub(super) fn differences(&self, expected: &[(String, String)]) -> Vec<String> {
        let sorted = |mut words: Vec<String>| {
            words.sort();
            words
        };
        let differs = |(key, value): &(String, String)| {
            let found = self.0.get(&key.to_ascii_lowercase())?;
            if sorted(found.clone()) == sorted(words(value)) {
                return None;
            }
            let found = plain(&found.join(" ").chars().take(200).collect::<String>());
            Some(format!("{key} is {found}, not {value}"))
        };
        expected.iter().filter_map(differs).collect()
    }
}

fn words(value: &str) -> Vec<String> {
    let words = value.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_without_trusting_it() {
        let answer =
            b"Welcome\x1b[2J!\ntidegate-answers\n1800000000\ndeploy\ntidegate-settings\nAllowTcpForwarding no\n\
                       permitopen 127.0.0.1:2 127.0.0.1:1\ntidegate-end\n";
        let survey = Survey::read(answer);
        assert!(survey.answered && survey.second == Some(1_800_000_000) && survey.login.as_deref() == Some("deploy"));
        let expected = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let settings = survey.settings.unwrap();
        let sound = expected(&[("AllowTcpForwarding", "no"), ("PermitOpen", "127.0.0.1:1 127.0.0.1:2"), ("New", "x")]);
        assert_eq!(settings.differences(&sound), Vec::<String>::new());
        let differences = settings.differences(&expected(&[("allowtcpforwarding", "local")]));
        assert_eq!(differences, ["allowtcpforwarding is no, not local"]);
        for silent in [&b""[..], b"This account is currently not available.\n"] {
            assert!(!Survey::read(silent).answered);
        }
        let unreadable = Survey::read(b"tidegate-answers\n1\ndeploy\ntidegate-settings\n");
        assert!(unreadable.answered && unreadable.settings.is_none());
        assert!(!Survey::read(b"\xff\x1b]0;x\x07").first_line.unwrap().chars().any(char::is_control));
    }
}
