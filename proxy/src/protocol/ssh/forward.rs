//! Forwarding by policy: a client's channel to a port or a socket that the target's sshd opens (`ssh -L`, `-D`, `-W`).
//!
//! What always holds: the rules of the entitlement are asked about what the client wrote; a name is resolved here, once in
//! a session, so that it cannot lead elsewhere the second time; the target is asked for an address, never for a name; the
//! client's channel is confirmed only when the target has confirmed its own; and each refusal is told in the channel's own
//! terms and written to the ledger.
//!
//! A forwarding is a [`Line`](super::line::Line) like any other, over a connection to the target like any other. It
//! only carries this with it, has no requests, and starts no program whose end it would wait for.

use super::{issuer::SshIssuer, line::plain, target::Opening};
use crate::{
    refusal::Refusal,
    session::{Way, about},
};
use russh::{ChannelOpenFailure, server::ChannelOpenHandle};
use rustix::io::Errno;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tidegate_grants::{
    ForwardRules, Permit, TargetName, Terms,
    forward::{Destination, Hazard, Host, HostName, NoDestination},
};
use tidegate_recorder as recorder;
use tokio::{net::lookup_host, sync::OnceCell, time::timeout};

/// How long a name may take to resolve.
const TO_RESOLVE: Duration = Duration::from_secs(8);
/// A name that leads to more addresses than this is not tried out to the end.
const MOST_HOPS: usize = 4;
/// Past this, what a client wrote is cut in messages.
const LONGEST_SHOWN: usize = 128;
/// More refusals of one session than this are not listed in its ledger.
const MOST_REFUSALS: usize = 100;

/// What a client asked for when it opened a channel for forwarding.
pub(super) struct Forward {
    /// Where to, or why that means nothing.
    asked: Result<Destination, NoDestination>,
    /// The same, to be shown.
    shown: String,
    /// The client waits for it. `None` once it has been given.
    reply: Mutex<Option<ChannelOpenHandle>>,
}

impl std::fmt::Debug for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Forward {
    /// To a port.
    pub(super) fn to_port(host: &str, port: u32, reply: ChannelOpenHandle) -> Self {
        let raw: String = host.chars().take(LONGEST_SHOWN).collect();
        Self::new(Destination::tcp(host, port), &format!("{raw}:{port}"), reply)
    }

    /// To a Unix socket.
    pub(super) fn to_socket(path: &str, reply: ChannelOpenHandle) -> Self {
        let raw: String = path.chars().take(LONGEST_SHOWN).collect();
        Self::new(path.parse().map(Destination::Socket), &format!("unix:{raw}"), reply)
    }

    fn new(asked: Result<Destination, NoDestination>, raw: &str, reply: ChannelOpenHandle) -> Self {
        let shown = asked.as_ref().map_or_else(|_| plain(raw), ToString::to_string);
        Self { asked, shown, reply: Mutex::new(Some(reply)) }
    }

    /// For the recording, before the target is asked. `connection`: the serial of its certificate.
    pub(super) fn opened(&self, channel: u32, connection: u64, opening: &Opening) -> recorder::Event {
        let reached = match opening {
            Opening::Tcp(address) => Some(address.to_string()),
            Opening::Socket(_) | Opening::Program => None,
        };
        recorder::Event::Opened {
            channel,
            what: "forward".to_owned(),
            command: Some(self.shown.clone()),
            reached,
            terminal: None,
            environment: BTreeMap::new(),
            connection: Some(connection),
        }
    }

    /// What the person is told when the target has opened no channel. `refused`: it would not even try.
    pub(super) fn no_answer(&self, target: &TargetName, refused: bool) -> Refusal {
        if refused {
            Refusal::new(format!("the sshd of {target} does not connect to {}", self.shown))
                .next("tell your admin: `tidegate target trust` may not be installed there")
        } else {
            Refusal::new(format!("{target} could not connect to {}", self.shown))
        }
    }

    fn reply(&self) -> Option<ChannelOpenHandle> {
        self.reply.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The channel is open at the target: it is for the client, too.
    pub(super) async fn confirm(&self) {
        if let Some(reply) = self.reply() {
            reply.accept().await; // sends to an unbounded queue
        }
    }

    /// No, by policy. Nothing happens to one that is open already.
    pub(super) async fn refuse(&self, refusal: &Refusal) {
        self.fail(1, refusal).await; // SSH_OPEN_ADMINISTRATIVELY_PROHIBITED (RFC 4254 section 5.1)
    }

    /// No, since nobody answers there.
    pub(super) async fn unreached(&self, refusal: &Refusal) {
        self.fail(2, refusal).await; // SSH_OPEN_CONNECT_FAILED
    }

    /// No, since there are too many.
    pub(super) async fn too_many(&self, refusal: &Refusal) {
        self.fail(4, refusal).await; // SSH_OPEN_RESOURCE_SHORTAGE
    }

    async fn fail(&self, code: u32, refusal: &Refusal) {
        if let Some(reply) = self.reply() {
            reply.reject(ChannelOpenFailure::Other { code, reason: super::line::one_line(refusal) }).await;
        }
    }
}

/// Why something is not forwarded.
#[derive(Debug, thiserror::Error)]
enum No {
    #[error("it {0}")]
    Malformed(NoDestination),
    #[error("your entitlement does not allow it")]
    NotAllowed,
    #[error("the gateway could not resolve {}", .0.as_str())]
    Unresolved(HostName),
    #[error("{} leads to {hazard}, where no name may lead", .name.as_str())]
    Hazard { name: HostName, address: IpAddr, hazard: Hazard },
}

/// What one session may reach, and where its names lead.
#[derive(Debug)]
pub(super) struct Forwards {
    rules: ForwardRules,
    /// What targets see of the gateway. Its other addresses are found by trying.
    ours: Vec<IpAddr>,
    answers: Mutex<BTreeMap<HostName, Arc<OnceCell<Vec<IpAddr>>>>>,
    refused: Mutex<BTreeSet<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Forwards {
    /// By the terms of a permit. `source_addresses`: the gateway's, as targets see them.
    pub(super) fn of(permit: &Permit, source_addresses: &[String]) -> Self {
        let rules = match &permit.entitlement().terms {
            Terms::Ssh { forward, .. } => forward.clone(),
            Terms::Postgres { .. } => ForwardRules::default(),
        };
        let ours = source_addresses.iter().filter_map(|address| address.parse().ok()).collect();
        Self { rules, ours, answers: Mutex::default(), refused: Mutex::default() }
    }

    /// What to ask of the target, one after the other until one is open. An error has been written down.
    pub(super) async fn judge(&self, forward: &Forward, way: &Way<'_, SshIssuer>) -> Result<Vec<Opening>, Refusal> {
        match self.decide(&forward.asked).await {
            Ok(openings) => Ok(openings),
            Err(no) => {
                let address = if let No::Hazard { address, .. } = &no { Some(*address) } else { None };
                self.write_down(&forward.shown, &no.to_string(), address, way).await;
                let refusal = Refusal::new(format!("no forwarding to {}: {no}", forward.shown))
                    .by("forward")
                    .marked(way.permit.reference());
                Err(match no {
                    No::Unresolved(_) => refusal.next("ask your admin for a rule with its address"),
                    _ if self.rules.is_empty() => refusal.next("it allows no forwarding; ask your admin"),
                    _ => refusal.next(format!("it allows: {}", clipped(&self.rules.to_string()))),
                })
            }
        }
    }

    async fn decide(&self, asked: &Result<Destination, NoDestination>) -> Result<Vec<Opening>, No> {
        let asked = asked.as_ref().map_err(|wrong| No::Malformed(*wrong))?;
        if !self.rules.allows(asked) {
            return Err(No::NotAllowed);
        }
        let (host, port) = match asked {
            Destination::Socket(path) => return Ok(vec![Opening::Socket(path.clone())]),
            Destination::Tcp { host, port } => (host, *port),
        };
        let addresses = match host {
            Host::Localhost => vec![std::net::Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()],
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                let addresses = self.addresses(name).await?;
                for address in &addresses {
                    let judged = self.rules.judge(*address, port, self.is_ours(*address));
                    judged.map_err(|hazard| No::Hazard { name: name.clone(), address: *address, hazard })?;
                }
                addresses
            }
        };
        Ok(addresses.into_iter().take(MOST_HOPS).map(|address| Opening::Tcp(SocketAddr::new(address, port))).collect())
    }

    /// The first answer is the session's answer. A failure is none: it opens nothing, and may be asked again.
    async fn addresses(&self, name: &HostName) -> Result<Vec<IpAddr>, No> {
        let answer = lock(&self.answers).entry(name.clone()).or_default().clone();
        let resolve = || async {
            let found = timeout(TO_RESOLVE, lookup_host((name.as_str(), 0))).await.ok()?.ok()?;
            let mut addresses: Vec<IpAddr> = Vec::new();
            for address in found.map(|found| found.ip().to_canonical()) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            (!addresses.is_empty()).then_some(addresses)
        };
        let answer = answer.get_or_try_init(|| async { resolve().await.ok_or(()) }).await;
        answer.cloned().map_err(|()| No::Unresolved(name.clone()))
    }

    /// A socket can be bound to the machine's own addresses, and to no others. What cannot be tried may be ours.
    fn is_ours(&self, address: IpAddr) -> bool {
        let not_ours = match UdpSocket::bind((address, 0)).as_ref().map_err(Errno::from_io_error) {
            Ok(_) => false,
            // (A kernel without IPv6 has no such address.)
            Err(error) => matches!(error, Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT)),
        };
        self.ours.contains(&address) || !not_ours
    }

    /// Something was asked for that is not carried at all.
    pub(super) async fn deny(&self, what: &str, way: &Way<'_, SshIssuer>) {
        self.write_down(what, "it is not supported yet", None, way).await;
    }

    /// In the recording each time, in the ledger once for each destination.
    async fn write_down(&self, what: &str, why: &str, address: Option<IpAddr>, way: &Way<'_, SshIssuer>) {
        let text = format!("refused: {what}: {why}");
        let _ = way.recording.note(recorder::Event::Said { text }, way.gate.now()); // its next byte ends the session
        let (first, count) = {
            let mut refused = lock(&self.refused);
            let room = refused.len() < MOST_REFUSALS;
            (room && refused.insert(what.to_owned()), refused.len())
        };
        if !first {
            return;
        }
        let mut detail = serde_json::json!({
            "destination": what, "why": why, "check": "forward", "ref": way.permit.reference(),
            "access": way.permit.access(), "source": way.permit.source(),
        });
        if let (Some(address), Some(detail)) = (address, detail.as_object_mut()) {
            detail.insert("address".to_owned(), address.to_string().into());
        }
        if let (MOST_REFUSALS, Some(detail)) = (count, detail.as_object_mut()) {
            detail.insert("further".to_owned(), "not listed; the recording has them".into());
        }
        let event = about("forward.refused", way.permit).detail(detail);
        if let Err(error) = way.gate.store.append(event, way.gate.now()).await {
            tracing::error!(session = %way.permit.session(), %error, "the refusal could not be written");
        }
    }
}

fn clipped(rules: &str) -> String {
    let mut text: String = rules.chars().take(LONGEST_SHOWN).collect();
    if text.len() < rules.len() {
        text.push('…');
    }
    text
}
