//! `[smtp]` and `[[notify]]`: who is told what happened, by mail or by a webhook.
//!
//! What always holds: where something goes to is fixed here, and nothing that a person or a target says can change it; what leaves the
//! host is encrypted, and its receiver proven.

use super::{
    secret::{Held, Secret, long_enough, secret},
    section::{Section, TextSpot},
    value::{self, PLAIN_NAME_FIX},
};
use crate::{
    notify::{Channel, Format, Kind, Mail, Smtp, SmtpTls, Way, Webhook},
    outgoing::{address, is_here},
};
use std::sync::Arc;

const SMTP_FIX: &str = "write server = \"mail.example.com:587\"";
const FROM_FIX: &str = "write from = \"tidegate@example.com\"";
const TO_FIX: &str = "write to = [\"oncall@example.com\"] for mail, or url = \"https://…\" for a webhook";
const URL_FIX: &str = "write it like \"https://hooks.example.com/services/T1\" (http:// only to this host itself)";
const KINDS_FIX: &str = "list what it is told of: \"break_glass\", \"denial\", \"teardown\", \"orphan\", \"recording\", \"request\", \"expiry\", \"lock\", \"mfa\", \"store\", or kinds of \
                         the ledger like \"grant.*\" and \"session.killed\"";
const SECRET: [&str; 2] = ["secret_file", "secret_env"];
/// What belongs to url.
const OF_URL: [&str; 4] = ["format", "secret_file", "secret_env", "tls_ca"];
const PASSWORD: [&str; 2] = ["password_file", "password_env"];

/// All channels, and the secrets that they make us hold.
#[derive(Default)]
pub(super) struct Notify {
    pub(super) channels: Vec<Arc<Channel>>,
    pub(super) secrets: Vec<Secret>,
}

/// What was faulty is left out, and has said so.
pub(super) fn notify(root: &Section<'_>) -> Notify {
    let mut found = Notify::default();
    let smtp = root.section("smtp").and_then(|section| smtp(&section, &mut found.secrets)).map(Arc::new);
    for section in root.sections("notify") {
        let name = section.need("name", section.text("name"), "write name = \"oncall\"");
        let name = name.and_then(|name| name.parse(value::plain_name, PLAIN_NAME_FIX));
        let kinds = kinds(&section);
        let way = way(&section, smtp.as_ref(), root.has("smtp"), &mut found.secrets);
        section.unknown();
        let Some(name) = name else { continue };
        if let Some(other) = name.seen("notify", &name.value) {
            name.fault(format!("is the name of another [[notify]] already ({other})"), "give each a name of its own");
        } else if let (Some(kinds), Some(way)) = (kinds, way) {
            found.channels.push(Arc::new(Channel { name: name.value, kinds, way }));
        }
    }
    found
}

fn kinds(section: &Section<'_>) -> Option<Vec<Kind>> {
    let list = section.need("kinds", section.texts("kinds"), KINDS_FIX)?;
    if list.value.is_empty() {
        list.fault("is empty: it would be told nothing", KINDS_FIX);
        return None;
    }
    let kinds: Vec<Option<Kind>> =
        list.value.into_iter().map(|kind| Some(kind.parse(str::parse::<Kind>, KINDS_FIX)?.value)).collect();
    kinds.into_iter().collect()
}

fn way(section: &Section<'_>, smtp: Option<&Arc<Smtp>>, has_smtp: bool, secrets: &mut Vec<Secret>) -> Option<Way> {
    let tls_ca = section.text("tls_ca");
    match (section.texts("to"), section.text("url")) {
        (Some(to), None) => {
            section.misplaced(&OF_URL, "is for url", "take it out");
            if !has_smtp {
                to.fault("needs a server to send it", "write [smtp] with server and from");
            }
            let nobody = to.value.is_empty().then(|| to.with(()));
            if let Some(to) = nobody {
                to.fault("is empty: nobody would be told", "name who is, like [\"oncall@example.com\"]");
                return None;
            }
            let mailbox = |to: TextSpot<'_>| {
                Some(to.parse(str::parse::<lettre::message::Mailbox>, "write it like oncall@example.com")?.value)
            };
            let addresses: Vec<Option<_>> = to.value.into_iter().map(mailbox).collect();
            let to: Vec<_> = addresses.into_iter().collect::<Option<_>>()?;
            Some(Way::Mail(Mail { smtp: smtp?.clone(), to }))
        }
        (None, Some(url)) => {
            let uri = url.parse(address, URL_FIX)?.value;
            let format = match section.text("format") {
                Some(format) => {
                    format.parse(str::parse::<Format>, "write \"json\", \"slack\", \"teams\" or \"mattermost\"")?.value
                }
                None => Format::Json,
            };
            let key = match section.has(SECRET[0]) || section.has(SECRET[1]) {
                true => {
                    let fix = "name what holds the secret that its signatures are made with, of 32 bytes or more";
                    let held: Held<_> = secret(section, SECRET, fix, |bytes| long_enough(bytes, 32))?;
                    secrets
                        .push(Secret { place: held.place, why: format!("signs what goes to the {}", section.name()) });
                    Some(Arc::new(held.value))
                }
                false => {
                    section.pass_over(&SECRET);
                    None
                }
            };
            Some(Way::Webhook(Webhook { uri, format, key, tls_ca: tls_ca.map(|file| file.path()) }))
        }
        (Some(_), Some(url)) => {
            section.pass_over(&OF_URL);
            url.fault("stands beside to", TO_FIX);
            None
        }
        (None, None) => {
            section.pass_over(&OF_URL);
            if !section.has("to") && !section.has("url") {
                section.fault("to", "is missing, and url too", TO_FIX);
            }
            None
        }
    }
}

fn smtp(section: &Section<'_>, secrets: &mut Vec<Secret>) -> Option<Smtp> {
    let server = section.need("server", section.text("server"), SMTP_FIX);
    let server = server.and_then(|server| server.parse(host_and_port, SMTP_FIX));
    let from = section.need("from", section.text("from"), FROM_FIX);
    let from = from.and_then(|from| from.parse(str::parse::<lettre::message::Mailbox>, FROM_FIX));
    let tls = match section.text("tls") {
        Some(tls) => tls_of(&tls, server.as_ref().map(|server| server.value.0.as_str())),
        None => Some(SmtpTls::StartTls),
    };
    let tls_ca = section.text("tls_ca").map(|file| file.path());
    let login = match section.text("user") {
        Some(user) => {
            let fix = "name what holds the password of user";
            let held: Held<_> = secret(section, PASSWORD, fix, |bytes| long_enough(bytes, 1))?;
            secrets.push(Secret { place: held.place, why: "logs in to the mail server".to_owned() });
            Some((user.value.to_owned(), Arc::new(held.value)))
        }
        None => {
            section.misplaced(&PASSWORD, "needs a user beside it", "write user = \"…\", or take it out");
            None
        }
    };
    section.unknown();
    let (host, port) = server?.value;
    Some(Smtp { host, port, from: from?.value, tls: tls?, tls_ca, login })
}

fn tls_of(tls: &TextSpot<'_>, host: Option<&str>) -> Option<SmtpTls> {
    match tls.value {
        "starttls" => Some(SmtpTls::StartTls),
        "implicit" => Some(SmtpTls::Implicit),
        "none" if host.is_none_or(is_here) => Some(SmtpTls::None),
        "none" => {
            tls.fault("would go over the network in clear", "write \"starttls\" or \"implicit\"");
            None
        }
        _ => {
            tls.fault("is none of \"starttls\", \"implicit\" and \"none\"", "write one of them");
            None
        }
    }
}

fn host_and_port(text: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("has no port")?;
    let port = port.parse().map_err(|_| "has no port")?;
    if host.is_empty() { Err("names no host") } else { Ok((host.to_owned(), port)) }
}
