//! `tidegate target test`: a session that carries nothing, to see whether sessions would work, and what is wrong if not.

use crate::{gate::Gate, text::plain};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_grants::{Access, DatabaseName, LeaseState, Login, Receipt, SessionId, TargetName};
use tidegate_recorder::{Event, LiveRecording};
use utoipa::ToSchema;

/// What came of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// As good as this kind of target can be, and weaker than it could be with another: no fault, and worth knowing.
    Weak,
    /// Sessions work, but this is not as `target trust` says.
    Open,
    /// Sessions do not work because of this.
    Failed,
    /// Only root, or a superuser, on the target can see it.
    Unseen,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// `permit`, `dial`, `host`, `mint`, `login`, `clock`, `teardown`; SSH also `command`, `terminal`, `ways around`,
    /// `configuration`; PostgreSQL also `administrator`, `own door`, `version`, `primary`, `settings`, `functions`, `privileges`,
    /// `pg_hba`, `session`, `past the gate`.
    pub step: String,
    /// What came of it.
    pub outcome: Outcome,
    /// One plain sentence. What the target said in it has no control characters.
    pub said: String,
    /// What to do, or to run as root on the target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
}

/// What a test found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Which target.
    pub target: TargetName,
    /// SSH: as which login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
    /// PostgreSQL: in which database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseName>,
    /// Its session in the ledger, once it had a permit.
    pub session: Option<SessionId>,
    /// Nothing failed and nothing is open.
    pub sound: bool,
    /// In their order.
    pub steps: Vec<Step>,
    /// What the target answered after the teardown.
    pub receipt: Option<Receipt>,
}

/// A report in the making. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Notes(Arc<Mutex<Report>>);

impl Notes {
    /// About this login or database on this target.
    pub fn new(target: TargetName, access: Access) -> Self {
        let (login, database) = match access {
            Access::Login(login) => (Some(login), None),
            Access::Database(database) => (None, Some(database)),
        };
        let report = Report { target, login, database, session: None, sound: true, steps: Vec::new(), receipt: None };
        Self(Arc::new(Mutex::new(report)))
    }

    fn change(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Its session.
    pub fn session(&self, session: SessionId) {
        self.change(|report| report.session = Some(session));
    }

    /// A step, with what to do about it.
    pub fn step(&self, step: &str, outcome: Outcome, said: impl Into<String>, next: Vec<String>) {
        let step = Step { step: step.to_owned(), outcome, said: said.into(), next };
        self.change(|report| {
            report.sound &= !matches!(step.outcome, Outcome::Failed | Outcome::Open);
            report.steps.push(step);
        });
    }

    /// Why it did not work, where no step has said so.
    pub fn unless_failed(&self, step: &str, said: String) {
        if self.report().steps.iter().all(|step| step.outcome != Outcome::Failed) {
            self.step(step, Outcome::Failed, said, Vec::new());
        }
    }

    /// Whether something was said of this step.
    pub fn has(&self, step: &str) -> bool {
        self.report().steps.iter().any(|found| found.step == step)
    }

    /// A step that went well.
    pub fn ok(&self, step: &str, said: impl Into<String>) {
        self.step(step, Outcome::Ok, said, Vec::new());
    }

    /// What was found so far, into the recording. (One that cannot be written ends the session by itself.)
    pub(crate) fn record(&self, recording: &LiveRecording, now: Timestamp) {
        for step in self.report().steps {
            let text = format!("{}: {}", step.step, step.said);
            let _ = recording.note(Event::Said { text }, now);
        }
    }

    /// The receipt.
    pub fn receipt(&self, receipt: Option<Receipt>) {
        self.change(|report| report.receipt = receipt);
    }

    /// As far as it has come.
    pub fn report(&self) -> Report {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The teardown, as the lease tells it.
pub(crate) async fn conclude(gate: &Gate, session: SessionId, notes: &Notes) {
    let leases = match gate.store.leases_of(session).await {
        Ok(leases) => leases,
        Err(error) => return notes.step("teardown", Outcome::Failed, error.to_string(), Vec::new()),
    };
    let Some(lease) = leases.into_iter().next() else {
        return notes.ok("teardown", "there was no lease, so there is nothing to remove");
    };
    if lease.state() == LeaseState::Closed {
        notes.ok("teardown", format!("the lease {} is closed by the receipt", lease.id()));
    } else {
        let why = lease.last_error().unwrap_or("not done yet").to_owned();
        let said = format!("the lease {} is {:?} still: {why}; the gateway goes on trying", lease.id(), lease.state());
        notes.step("teardown", Outcome::Failed, plain(&said), vec!["tidegate lease list".to_owned()]);
    }
    notes.receipt(lease.receipt().cloned());
}
