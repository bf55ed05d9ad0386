//! What a bundle shows, one claim a line, and on whose word each rests.

use super::Evidence;
use crate::recovered::RECOVERED;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::Value;
use ssh_key::{HashAlg, PublicKey, SshSig};
use tidegate_grants::{
    ledger::{Entry, Event},
    request::{NAMESPACE, RequestDigest},
    store::StateRow,
};

/// On whose word something rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Word {
    /// A signature by the key at hand proves it.
    Signed,
    /// The gateway says so: it signed that it saw this, and nobody else did.
    Attested,
    /// It is not in here.
    Absent,
}

impl Word {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Signed => "SIGNED",
            Self::Attested => "ATTESTED",
            Self::Absent => "ABSENT",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Claim {
    pub(crate) word: Word,
    pub(crate) what: String,
}

fn claim(word: Word, what: impl Into<String>) -> Claim {
    Claim { word, what: what.into() }
}

impl Evidence {
    pub(super) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().map(|included| &included.exported.entry).filter(move |entry| entry.event.kind == kind)
    }

    /// The entries of this session itself.
    pub(super) fn own<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Event> {
        let ours = |event: &&Event| event.session.is_some_and(|session| session.to_string() == self.session);
        self.of_kind(kind).map(|entry| &entry.event).filter(ours)
    }

    pub(super) fn row(&self, table: &str) -> impl Iterator<Item = &StateRow> {
        self.rows.iter().filter(move |row| row.table == table)
    }

    /// There is a recording, unless somebody has taken it away.
    pub(super) fn is_recording_due(&self) -> bool {
        self.own("recording.started").next().is_some() && self.own("recording.deleted").next().is_none()
    }

    /// What was left of a recording that its gateway did not end.
    pub(super) fn recovered(&self) -> Option<&Event> {
        self.own(RECOVERED).last()
    }

    /// All that it shows, in the order of the story.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        let mut claims = vec![self.in_ledger()];
        self.request(&mut claims);
        self.grants(&mut claims);
        self.session_claims(&mut claims);
        self.recording(&mut claims);
        self.receipts(&mut claims);
        claims
    }

    fn in_ledger(&self) -> Claim {
        let heads = self.trees.iter().map(|tree| format!("{}/{} at {}", tree.node, tree.seq, tree.at));
        let heads = heads.collect::<Vec<_>>().join(", ");
        let count = self.entries.len();
        claim(Word::Signed, format!("{count} entries are in the gateway's ledger, which had come to {heads}"))
    }

    fn request(&self, claims: &mut Vec<Claim>) {
        for entry in self.entries.iter().map(|included| &included.exported.entry) {
            let Some(verb) = entry.event.kind.strip_prefix("request.") else { continue };
            let detail = &entry.event.detail;
            let asked = entry.event.identity.as_deref().unwrap_or("?");
            let by = detail.get("by").and_then(Value::as_str).unwrap_or(asked);
            let what = format!("the request of {asked} was {verb} by {by} at {}", entry.at);
            claims.push(match detail.get("signature").and_then(Value::as_str) {
                None => claim(Word::Attested, what),
                Some(armored) => match self.signed_by(detail, armored) {
                    Some((key, terms)) => claim(
                        Word::Signed,
                        format!("{what}, with key {key} over what was asked for, {terms}; whose key that is, the gateway says"),
                    ),
                    None => claim(Word::Attested, format!("{what}, with a signature that does not hold for what was asked for")),
                },
            });
        }
    }

    /// The fingerprint of the approver's key, and what was asked for, if its signature over that holds.
    fn signed_by(&self, detail: &Value, armored: &str) -> Option<(String, &str)> {
        let text = |name: &str| detail.get(name).and_then(Value::as_str);
        let (request, digest) = (text("request")?, text("digest")?);
        // Not what the gateway says that the digest is of.
        let terms = self.row("requests").find(|row| row.key == request)?.text("terms")?;
        if RequestDigest::of(terms).as_str() != digest {
            return None;
        }
        let line = format!("tidegate approval v1 gateway={} request={request} sha256={digest}", self.gateway);
        let signature = SshSig::from_pem(armored.trim()).ok()?;
        let key = PublicKey::from(signature.public_key().clone());
        // `ssh gate approve | ssh-keygen` signs the end of the line too, `printf %s` does not: it is the same line.
        let lines = [format!("{line}\n"), line];
        let holds = lines.iter().any(|line| key.verify(NAMESPACE, line.as_bytes(), &signature).is_ok());
        holds.then(|| (key.fingerprint(HashAlg::Sha256).to_string(), terms))
    }

    /// The grant, and the one that extended it, if one did.
    fn grants(&self, claims: &mut Vec<Claim>) {
        if self.row("grants").next().is_none() {
            claims.push(claim(Word::Absent, "the grant is not in here"));
        }
        self.row("grants").for_each(|row| self.grant(row, claims));
        for event in self.own("session.extended") {
            let (text, by) = (|name: &str| event.detail.get(name).and_then(Value::as_str).unwrap_or("?"), event.grant);
            let by = by.map_or_else(|| "?".to_owned(), |by| by.to_string());
            let what = format!(
                "the session, of grant {}, rested on grant {by} from then on, until {}",
                text("extends"),
                text("until")
            );
            claims.push(claim(Word::Attested, what));
        }
    }

    fn grant(&self, row: &StateRow, claims: &mut Vec<Claim>) {
        let part = |at: usize| -> Option<Value> {
            let text = row.text("token")?.split('.').nth(at)?;
            serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()
        };
        let (head, body) = (part(0).unwrap_or_default(), part(1).unwrap_or_default());
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
        let from =
            |name: &str| body.get(name).and_then(Value::as_i64).and_then(|at| jiff::Timestamp::from_second(at).ok());
        let moment = |name: &str| from(name).map_or_else(|| "?".to_owned(), |at| at.to_string());
        let lasts = body.get("lasts").and_then(Value::as_i64);
        let lasts = lasts.map(|lasts| format!(" ({lasts} s from its first session)")).unwrap_or_default();
        let what = format!(
            "grant {} of {} for {} on {}, entitlement {}, from {} until {}{lasts}, reason {:?}",
            row.key,
            text("iss"),
            text("sub"),
            text("target"),
            text("entitlement"),
            moment("nbf"),
            moment("exp"),
            text("reason")
        );
        let outside = text("iss") != self.gateway && head.get("alg").and_then(Value::as_str) == Some("EdDSA");
        claims.push(claim(Word::Attested, what));
        if outside {
            let whose = format!(
                "the grant carries the Ed25519 signature of issuer {}: their public key proves it",
                text("iss")
            );
            claims.push(claim(Word::Attested, whose));
        }
        for approval in body.get("approvals").and_then(Value::as_array).into_iter().flatten() {
            let by = approval.get("by").and_then(Value::as_str).unwrap_or("?");
            claims.push(claim(Word::Attested, format!("approved by {by}, as the grant says")));
        }
    }

    fn session_claims(&self, claims: &mut Vec<Claim>) {
        for row in self.row("sessions") {
            let text = |name: &str| row.text(name).unwrap_or("–");
            claims.push(claim(
                Word::Attested,
                format!(
                    "session of {}, as {} on {}, from {}, from {} until {}: {}",
                    text("identity"),
                    text("access"),
                    text("target"),
                    text("source"),
                    text("start"),
                    text("finish"),
                    text("outcome")
                ),
            ));
        }
        for entry in self.of_kind("session.opened").take(1) {
            claims.push(claim(Word::Attested, format!("configuration in force, SHA-256 {}", entry.config)));
        }
        for event in self.own("credential.minted") {
            let mut minted = event.detail.clone();
            let reported = minted.as_object_mut().and_then(|minted| minted.remove("reported"));
            claims.push(claim(Word::Attested, format!("minted: {minted}")));
            if let Some(reported) = reported.filter(|reported| !reported.is_null()) {
                claims.push(claim(Word::Attested, format!("of what was minted the target reported: {reported}")));
            }
        }
    }

    fn recording(&self, claims: &mut Vec<Claim>) {
        let sealed = self.own("recording.sealed").last();
        let part =
            |name: &str| sealed.and_then(|event| event.detail.get(name)).map_or("?".to_owned(), Value::to_string);
        if let Some(deleted) = self.own("recording.deleted").last() {
            let keep = deleted.detail.get("keep").and_then(Value::as_str).unwrap_or("?");
            claims.push(claim(
                Word::Attested,
                format!("the recording was kept for {keep}, and then deleted by that rule"),
            ));
        }
        claims.push(match (sealed, self.redacted) {
            (None, _) => match self.recovered() {
                None => claim(Word::Absent, "the ledger has no seal of a recording: it breaks off, or the session lives"),
                Some(left) => {
                    let part = |name: &str| left.detail.get(name).map_or("?".to_owned(), Value::to_string);
                    let (frames, proven, head) = (part("frames"), part("proven"), part("head"));
                    claim(
                        Word::Signed,
                        format!(
                            "the recording breaks off: when its gateway came back it had {frames} frames, of which its own \
                             signatures prove {proven}, and the head {head}"
                        ),
                    )
                }
            },
            (Some(_), true) => {
                let gone = self.own("recording.deleted").next().is_some();
                let how = if gone { "is no more, had" } else { "was left out, has" };
                let (frames, head) = (part("frames"), part("head"));
                claim(Word::Signed, format!("the recording, which {how} {frames} frames and the head {head}"))
            }
            (Some(_), false) => claim(
                Word::Signed,
                format!("the recording is in here, with {} frames and the head {}", part("frames"), part("head")),
            ),
        });
    }

    fn receipts(&self, claims: &mut Vec<Claim>) {
        for row in self.row("leases") {
            let (name, state) = (row.text("name").unwrap_or("?"), row.text("state").unwrap_or("?"));
            let receipt = row.text("receipt").unwrap_or("none yet");
            claims.push(claim(
                Word::Attested,
                format!("lease {} of {name} is {state}; the target answered: {receipt}", row.key),
            ));
        }
    }

    /// Who may see what a claim rests on, for people.
    pub(super) fn legend() -> &'static str {
        "SIGNED: a signature proves it, by the key that the line names or else by the gateway's ledger key, and nothing in here\n\
         can be changed without breaking one.\n\
         ATTESTED: the gateway says so. It signed that this is what it saw, so it cannot take it back; that it was so, no\n\
         other key than its own proves.\n\
         ABSENT: not in here.\n"
    }
}
