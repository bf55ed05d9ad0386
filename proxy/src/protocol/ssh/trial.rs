//! `tidegate target test` for an SSH target: a session that nobody sits at, from the permit to the receipt.
//!
//! What always holds: it goes the way of every session (recording, lease before effect, teardown, receipt), and says no
//! more of a target than what was seen. What only root on the target can see is named with the command that shows it.
//!
//! sshd says no without a reason. So where the usual certificate is refused, others that differ from it in one point are
//! shown on the same connection: the one that is let in names the fault. Each is in the lease before, and its key is
//! destroyed after.

use super::{
    SshIssuer, SshTarget,
    flow::{Budget, Item},
    hearing::FromTarget,
    issuer::{Minted, Otherwise},
    lease::{note_refused, note_unused},
    line::plain,
    survey::{self, Survey},
    target::{self, Greeted, Opening, TargetConnection},
};
use crate::{
    gate::Gate,
    issuer::{TARGET_DEADLINE, TargetError},
    refusal::Refusal,
    session::{self, Client, Ending, Way, about},
    trial::{Notes, Outcome, Report, conclude},
    trust::Part,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use tidegate_grants::{Access, Ask, Device, IdentityName, Login, Reference, TargetName, authority::GrantError};
use tokio::time::timeout;

/// As far as a clock may be off and a certificate of a usual length still be good (`valid from 30 s ago to 60 s ahead`).
const MOST_SKEW: u64 = 20;
/// How far off a clock is looked for when the usual certificate is refused. A certificate lives for ten minutes at most.
const FAR: Duration = Duration::from_secs(8 * 60);

/// What to test, and what was to be installed there.
#[derive(Debug)]
pub struct Tested {
    /// Where.
    pub target: TargetName,
    /// As whom.
    pub login: Login,
    /// What `target trust` prints.
    pub parts: Vec<Part>,
}

/// Runs the test on the word of an admin. The report says what was found; an error, that it did not begin.
///
/// # Errors
/// [`GrantError`]: not an admin, no such target, or no such login there.
pub async fn trial(gate: &Gate, issuer: &SshIssuer, by: &IdentityName, tested: Tested) -> Result<Report, GrantError> {
    let Tested { target, login, parts } = tested;
    let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (identity, access) = (by.clone(), Access::Login(login.clone()));
    let ask = Ask {
        identity,
        target: target.clone(),
        access,
        entitlement: None,
        source,
        factor: None,
        device: Device::default(),
        reference: Reference::new(),
    };
    let permit = gate.authority.permit_trial(ask.clone(), gate.now()).await?;
    let (session, notes) = (permit.session(), Notes::new(target, ask.access.clone()));
    notes.session(session);
    notes.ok("permit", format!("on the word of {by}, until {}; it carries nothing of anybody", permit.expires()));
    let tester = Tester { issuer, ask, login, parts, notes: notes.clone() };
    session::hold(gate, issuer, tester, permit).await;
    conclude(gate, session, &notes).await;
    Ok(notes.report())
}

/// The client of that session.
struct Tester<'a> {
    issuer: &'a SshIssuer,
    ask: Ask,
    login: Login,
    parts: Vec<Part>,
    notes: Notes,
}

impl Client for Tester<'_> {
    type Issuer = SshIssuer;
    type Target = TargetConnection;
    const PROTOCOL: &'static str = "ssh";

    fn ask(&self) -> &Ask {
        &self.ask
    }

    async fn refuse(self, refusal: Refusal) {
        self.notes.step("permit", Outcome::Failed, refusal.sentence, refusal.next.into_iter().collect());
    }

    async fn connect(&self, credential: Minted, way: &Way<'_, SshIssuer>) -> Result<TargetConnection, TargetError> {
        let target = &*self.issuer.target(&self.ask.target)?;
        let (mut greeted, local, shown) = self.reach(target, credential, way).await?;
        let certificate = &shown.credential.certificate;
        let serial = certificate.serial();
        let usual = self.issuer.usual(target, self.login.as_str());
        self.notes.ok(
            "mint",
            format!(
                "a certificate for {} from {}, serial {serial}, until {}, is noted in the lease",
                usual.principal,
                usual.source_addresses.join(" or "),
                shown.valid_before,
            ),
        );
        let methods = greeted.methods(self.login.as_str()).await;
        let accepted = match methods {
            Ok(methods) => {
                self.ways_around(&methods);
                greeted.show(self.login.as_str(), shown.credential).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &accepted {
            let next =
                vec!["does sshd take connections from the gateway, and as many tries as its log says?".to_owned()];
            self.failed("login", error, next);
            // It was not let in, as far as we heard, and no channel was opened: nothing can have run.
            note_refused(&way.gate.store, serial, error, way).await;
        }
        if accepted? {
            self.notes.ok("login", format!("{} is let in", self.login));
            let event =
                about("target.connected", way.permit).detail(serde_json::json!({ "serial": serial, "local": local }));
            let written = way.gate.store.append(event, way.gate.now()).await;
            written.map_err(|error| TargetError::Ours(format!("not connected: {error}")))?;
            return Ok(greeted.opened(serial));
        }
        let refused = greeted.refusal(self.login.as_str());
        note_refused(&way.gate.store, serial, &refused, way).await;
        self.find_out(&mut greeted, &usual, local, way).await;
        Err(refused)
    }

    async fn relay(&mut self, target: TargetConnection, way: &Way<'_, SshIssuer>) -> Ending {
        match timeout(TARGET_DEADLINE, survey::ask(&target)).await {
            Ok(Ok(answer)) => self.judge(&Survey::read(&answer), way),
            Ok(Err(error)) => self.failed_command(&format!("the connection broke: {error}")),
            Err(_) => self.failed_command("its shell did not answer in time"),
        }
        self.terminal(&target).await;
        self.notes.record(way.recording, way.gate.now());
        Ending::Closed
    }

    async fn part(self, ending: &Ending) {
        match ending {
            Ending::Closed => {}
            // The step that failed has said so, or nobody has yet.
            Ending::Failed(error) => self.notes.unless_failed("session", plain(&error.to_string())),
            Ending::Cut(refusal) => {
                self.notes.step("session", Outcome::Failed, format!("cut: {}", refusal.sentence), Vec::new());
            }
        }
    }
}

impl Tester<'_> {
    /// dial → host → lease
    async fn reach(
        &self,
        target: &SshTarget,
        credential: Minted,
        way: &Way<'_, SshIssuer>,
    ) -> Result<(Greeted, SocketAddr, super::issuer::Shown), TargetError> {
        let next =
            format!("is {} the right address, is sshd running there, and may the gateway reach it?", target.address);
        let stream = target::dial(target).await.inspect_err(|error| self.failed("dial", error, vec![next]))?;
        let local = stream.local_addr().map_err(|error| TargetError::Ours(error.to_string()))?;
        self.notes.ok("dial", format!("{} answers; it is reached from {local}", target.address));
        let shown = credential.noted(local, way).await?;
        let greeted = target::greet(stream, target, way.gate.now(), &Budget::default(), shown.open.clone()).await;
        match greeted {
            Ok(greeted) => {
                self.notes.ok("host", format!("it proved itself by {}", target.host.expected()));
                Ok((greeted, local, shown))
            }
            Err(error) => {
                self.failed("host", &error, advice_on_host(target, &error));
                note_refused(&way.gate.store, shown.credential.certificate.serial(), &error, way).await;
                Err(error)
            }
        }
    }

    fn failed(&self, step: &str, error: &TargetError, next: Vec<String>) {
        self.notes.step(step, Outcome::Failed, plain(&error.to_string()), next);
    }

    /// What the running sshd offers this login beside a certificate.
    fn ways_around(&self, methods: &[String]) {
        let others: Vec<&str> = methods.iter().map(String::as_str).filter(|method| *method != "publickey").collect();
        if others.is_empty() {
            return self.notes.ok("ways around", format!("the running sshd offers {} no password", self.login));
        }
        let said = format!("the running sshd also lets {} log in by {}, past the gate", self.login, others.join(", "));
        self.notes.step("ways around", Outcome::Open, said, vec![self.install("sshd_config")]);
    }

    fn install(&self, part: &str) -> String {
        format!("install `tidegate target trust {} --part {part}` there and reload sshd", self.ask.target)
    }

    /// Why the usual certificate was refused, by showing others.
    async fn find_out(&self, greeted: &mut Greeted, usual: &Otherwise, local: SocketAddr, way: &Way<'_, SshIssuer>) {
        for (otherwise, said, next) in self.variations(usual) {
            let Ok(credential) = self.issuer.mint_otherwise(&otherwise, local, way).await else {
                break;
            };
            let serial = credential.certificate.serial();
            match greeted.show(self.login.as_str(), credential).await {
                Ok(true) => {
                    // It is hung up on, and no channel was opened: nothing can have run.
                    let detail = serde_json::json!({ "serial": serial, "local": local, "channels": 0 });
                    note_unused(&way.gate.store, serial, about("target.connected", way.permit).detail(detail), way)
                        .await;
                    return self.notes.step("login", Outcome::Failed, said, vec![next]);
                }
                Ok(false) => {
                    let cause = "a certificate that differs from the usual one".to_owned();
                    let refused = TargetError::Refused { target: self.ask.target.to_string(), cause };
                    note_refused(&way.gate.store, serial, &refused, way).await;
                }
                Err(error) => {
                    // It hangs up after so many tries. No channel was opened: nothing can have run.
                    note_refused(&way.gate.store, serial, &error, way).await;
                    break;
                }
            }
        }
        let said = format!(
            "sshd refused a sound certificate for {}, and does not say why: its CA may not be trusted, the principals file \
             may be missing or writable by others (StrictModes), the login locked or unknown, or the clock far off",
            self.login
        );
        self.notes.step("login", Outcome::Failed, said, self.as_root());
    }

    /// Certificates that differ in one point, what it means if one is let in, and what to do then.
    fn variations(&self, usual: &Otherwise) -> Vec<(Otherwise, String, String)> {
        let mut list = vec![
            (
                Otherwise { before: FAR, ..usual.clone() },
                "the target's clock is behind: a certificate is not yet valid there".to_owned(),
                "set the clock of the target (chronyd, systemd-timesyncd)".to_owned(),
            ),
            (
                Otherwise { after: FAR, ..usual.clone() },
                "the target's clock is ahead: a certificate has expired before it arrives".to_owned(),
                "set the clock of the target (chronyd, systemd-timesyncd)".to_owned(),
            ),
            (
                Otherwise { source_addresses: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()], ..usual.clone() },
                format!(
                    "the target sees the gateway come from another address than {}",
                    usual.source_addresses.join(", ")
                ),
                "correct gateway.source_addresses to what the target sees (its log of the connection says it)"
                    .to_owned(),
            ),
        ];
        if usual.principal != self.login.as_str() {
            list.push((
                Otherwise { principal: self.login.to_string(), ..usual.clone() },
                format!("the target takes the login's own name as principal, not {}: no AuthorizedPrincipalsFile is in force", usual.principal),
                self.install("sshd_config"),
            ));
        }
        list
    }

    /// What root on the target runs, and what it should say.
    fn as_root(&self) -> Vec<String> {
        let login = &self.login;
        let mut commands = vec![format!(
            "as root there: sshd -T -C user={login},host=gate,addr={} | grep -Ei '^(trustedusercakeys|authorizedprincipalsfile) '",
            self.issuer.usual_source()
        )];
        for part in &self.parts {
            let ours = part.name == "ca" || (part.name == "principals" && part.place.ends_with(&format!("/{login}")));
            if ours {
                let last = part.text.lines().last().unwrap_or_default();
                commands.push(format!(
                    "as root there: ls -l {0}; tail -n1 {0}   # of root alone, and it must say: {last}",
                    part.place
                ));
            }
        }
        commands.push(format!("as root there: passwd -S {login}; getent passwd {login}; date -u"));
        commands.push(
            "as root there: journalctl -u ssh -u sshd --since -5min   # sshd says there why it refused".to_owned(),
        );
        commands
    }

    fn failed_command(&self, why: &str) {
        let next = format!("as root there: getent passwd {}   # its shell must run commands", self.login);
        self.notes.step("command", Outcome::Failed, plain(why), vec![next]);
    }

    fn judge(&self, survey: &Survey, way: &Way<'_, SshIssuer>) {
        if !survey.answered {
            let said = survey.first_line.as_deref().unwrap_or("nothing");
            return self.failed_command(&format!(
                "the shell of {} ran something else than the command, and said: {said}",
                self.login
            ));
        }
        self.notes.ok("command", format!("a command runs as {}", survey.login.as_deref().unwrap_or("?")));
        self.clock(survey, way.gate.now().as_second());
        let expected = super::trust::settings(&self.parts, &self.login);
        let Some(settings) = &survey.settings else {
            let command =
                format!("as root there: sshd -T -C user={},host=gate,addr={}", self.login, self.issuer.usual_source());
            let said =
                "its sshd_config is not readable to the login, so whether it is as `target trust` says is not known";
            let lines = expected.iter().map(|(key, value)| format!("  it must say: {key} {value}"));
            return self.notes.step(
                "configuration",
                Outcome::Unseen,
                said,
                std::iter::once(command).chain(lines).collect(),
            );
        };
        let mut sound = true;
        for difference in settings.differences(&expected) {
            sound = false;
            let part = if difference.to_ascii_lowercase().contains("penalt") { "penalties" } else { "sshd_config" };
            self.notes.step("configuration", Outcome::Open, difference, vec![self.install(part)]);
        }
        if sound {
            self.notes.ok("configuration", "sshd_config is as `target trust` says, as far as the login can read it");
        }
    }

    fn clock(&self, survey: &Survey, now: i64) {
        let Some(skew) = survey.second.and_then(|second| second.checked_sub(now)) else { return };
        if skew.unsigned_abs() <= MOST_SKEW {
            return self.notes.ok("clock", format!("its clock is within {MOST_SKEW} s of the gateway's"));
        }
        let said = format!("its clock differs from the gateway's by {skew} s: certificates may not be valid there");
        self.notes.step("clock", Outcome::Open, said, vec!["set both clocks by NTP".to_owned()]);
    }

    /// Whether a terminal is given.
    async fn terminal(&self, target: &TargetConnection) {
        let asked = async {
            let write = target.open(&Opening::Program).await?;
            write.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await?;
            let given = loop {
                match target.down.pop().await {
                    Item::Event(FromTarget::Answer(given)) => break given,
                    Item::Event(FromTarget::Close) | Item::Overrun => break false,
                    Item::Data { bytes, .. } => target.down.settle(bytes.len()),
                    Item::Event(_) => {}
                }
            };
            write.close().await?;
            Ok::<bool, russh::Error>(given)
        };
        match timeout(TARGET_DEADLINE, asked).await {
            Ok(Ok(true)) => self.notes.ok("terminal", "a terminal is given"),
            _ => self.notes.step(
                "terminal",
                Outcome::Failed,
                "no terminal is given, so `ssh` without a command does not work",
                vec!["as root there: PermitTTY must be yes for this login, and /dev/pts mounted".to_owned()],
            ),
        }
    }
}

fn advice_on_host(target: &SshTarget, error: &TargetError) -> Vec<String> {
    match error {
        TargetError::Impostor { .. } => vec![
            "if the host was made anew: read its key on the host itself (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), \
             and correct the configuration"
                .to_owned(),
            "if it was not: somebody may stand between; nothing was sent".to_owned(),
        ],
        TargetError::Refused { .. } => {
            vec!["its sshd offers only algorithms that are not safe any more: update it, or its Ciphers, KexAlgorithms, MACs".to_owned()]
        }
        _ => vec![format!("is it an SSH server that listens on {}? MaxStartups or PerSourcePenalties of its sshd may have hung up", target.address)],
    }
}
