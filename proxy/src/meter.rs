//! What is counted and timed, for whoever watches the gateway from outside (`[metrics]`).
//!
//! What always holds: labels come from this program and its configuration, never from the network, so that nobody can make
//! them many; and counting never waits. What can be looked up when it is asked for (leases, sizes) is not counted here.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::time::Duration;

/// `protocol="ssh"`, `check="grant"`, `outcome="refused"`.
type Label = [(&'static str, &'static str); 1];
type Times = Family<Label, Histogram, fn() -> Histogram>;

/// Seconds. A mint takes milliseconds, a teardown at a target that is busy half a minute.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

fn times() -> Times {
    Family::new_with_constructor(|| Histogram::new(BUCKETS))
}

/// The counts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Meter {
    open: Family<Label, Gauge>,
    opened: Family<Label, Counter>,
    refusals: Family<Label, Counter>,
    recording_failures: Counter,
    reloads: Family<Label, Counter>,
    handshake: Times,
    mint: Times,
    teardown: Times,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            open: Family::default(),
            opened: Family::default(),
            refusals: Family::default(),
            recording_failures: Counter::default(),
            reloads: Family::default(),
            handshake: times(),
            mint: times(),
            teardown: times(),
        }
    }
}

/// A session that is counted as open until this is dropped.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Meter {
    /// Makes them known under their names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("sessions_open", "Live sessions, until their teardown is done", self.open.clone());
        registry.register("sessions_opened", "Sessions that were let in", self.opened.clone());
        registry.register("refusals", "Refusals and cuts, by the check that said no", self.refusals.clone());
        registry.register(
            "recording_failures",
            "Sessions that ended or did not begin because they could not be recorded",
            self.recording_failures.clone(),
        );
        registry.register("reloads", "Reloads of the configuration", self.reloads.clone());
        for (name, help, times) in [
            ("handshake", "From the first byte to knowing who it is", &self.handshake),
            ("mint", "To make a credential on or for a target", &self.mint),
            ("teardown", "From a session's end to the receipt, where the session itself got it", &self.teardown),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, times.clone());
        }
    }

    /// A session of this protocol was let in.
    #[must_use = "it counts as open until this is dropped"]
    pub fn session(&self, protocol: &'static str) -> Counted {
        let label = [("protocol", protocol)];
        self.opened.get_or_create(&label).inc();
        let open = self.open.get_or_create_owned(&label);
        open.inc();
        Counted(open)
    }

    /// This check said no.
    pub fn refused(&self, check: &'static str) {
        if check == "recording" {
            self.recording_failures.inc();
        }
        self.refusals.get_or_create(&[("check", check)]).inc();
    }

    /// The configuration was reloaded, or that was refused.
    pub fn reloaded(&self, done: bool) {
        self.reloads.get_or_create(&[("outcome", if done { "done" } else { "refused" })]).inc();
    }

    /// It is known who somebody is.
    pub fn handshake(&self, protocol: &'static str, took: Duration) {
        self.handshake.get_or_create(&[("protocol", protocol)]).observe(took.as_secs_f64());
    }

    /// A credential was made.
    pub fn mint(&self, protocol: &'static str, took: Duration) {
        self.mint.get_or_create(&[("protocol", protocol)]).observe(took.as_secs_f64());
    }

    /// A session has its receipt.
    pub fn teardown(&self, protocol: &'static str, took: Duration) {
        self.teardown.get_or_create(&[("protocol", protocol)]).observe(took.as_secs_f64());
    }
}
