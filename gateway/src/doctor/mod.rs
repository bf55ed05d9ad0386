//! `tidegate doctor`: what is wrong with a gateway, or will be soon, and what to do about each.
//!
//! What always holds: it changes nothing; each line stands for something that was looked at now, and what could not be looked at
//! is never OK; a target that does not answer keeps no other check waiting. It works with and without a running gateway.

mod gateway;
mod local;
mod targets;

use crate::config::Config;
use serde::Serialize;
use std::path::Path;
use tidegate_ca::Keys;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and somebody should look.
    Warn,
    /// Something does not work, or nobody can know whether it does.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What, in a word or two.
    pub(crate) check: String,
    /// How it is.
    pub(crate) verdict: Verdict,
    /// One plain sentence.
    pub(crate) said: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

impl Finding {
    fn ok(check: &str, said: impl Into<String>) -> Self {
        Self { check: check.to_owned(), verdict: Verdict::Ok, said: said.into(), next: None }
    }

    fn warn(check: &str, said: impl Into<String>, next: impl Into<String>) -> Self {
        Self { check: check.to_owned(), verdict: Verdict::Warn, said: said.into(), next: Some(next.into()) }
    }

    fn fail(check: &str, said: impl Into<String>, next: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, ..Self::warn(check, said, next) }
    }
}

/// Everything, in the order in which one would look oneself.
pub(crate) fn examine(file: &Path, config: &Config) -> Vec<Finding> {
    let state = &config.state_dir;
    let mut findings = vec![local::configuration(file, config)];
    findings.extend(config.notes.iter().map(|note| Finding::warn("configuration", note.clone(), "tidegate check")));
    findings.extend(local::state(state));
    findings.push(local::disk(state));
    findings.push(local::descriptors(config));
    match Keys::open(&state.join("keys")) {
        Ok(keys) => {
            findings.push(Finding::ok("keys", "each can be read, by the gateway's account alone"));
            findings.extend(local::certificates(config, &keys));
            findings.extend(local::ledger(state, &keys));
        }
        Err(error) => {
            findings.push(Finding::fail("keys", error.to_string(), "tidegate check lists the keys and their files"))
        }
    }
    findings.extend(gateway::examine(state));
    findings.extend(targets::examine(config));
    findings
}
