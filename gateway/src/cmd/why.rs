//! `tidegate why REF`

use super::{moment, print, print_json};
use crate::{
    api::client::{Client, segment},
    text::plain,
    why::{Explanation, Refused},
};
use std::{fmt::Write as _, process::ExitCode};

pub(super) fn run(client: &Client, reference: &str, json: bool) -> anyhow::Result<ExitCode> {
    let explanation: Explanation = client.get(&format!("/v1/refusals/{}", segment(reference)))?;
    if json {
        return print_json(&explanation);
    }
    let mut out = String::new();
    for refused in &explanation.refusals {
        described(&mut out, refused)?;
    }
    print(&out)
}

fn described(out: &mut String, refused: &Refused) -> std::fmt::Result {
    let mut line = |what: &str, value: &str| match value {
        "" => Ok(()),
        value => writeln!(out, "{what:<8} {}", plain(value)),
    };
    line("when", &moment(refused.at))?;
    let unproven = if refused.proven { "" } else { " (as they said; not proven)" };
    line("who", &refused.who.as_ref().map(|who| format!("{who}{unproven}")).unwrap_or_default())?;
    line("from", refused.source.as_deref().unwrap_or_default())?;
    line("asked", refused.asked.as_deref().unwrap_or_default())?;
    line("session", refused.session.as_deref().unwrap_or_default())?;
    line("refused", &format!("{} ({}, check: {})", refused.why, refused.kind, refused.check))?;
    for sentence in &refused.because {
        line("because", sentence)?;
    }
    for next in &refused.next {
        line("next", next)?;
    }
    writeln!(out)
}
