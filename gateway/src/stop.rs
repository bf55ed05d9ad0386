//! Signals, and how the gateway stops: drain → cut → tear down → exit.
//!
//! SIGTERM or SIGINT: nobody new is let in, who is in is told, and has `gateway.drain` to finish; then sessions are cut, and
//! their teardown has [`TEARDOWN`]. A second one cuts at once, a third does not wait for teardown either: what is left
//! on targets then is in the lease table, and the next start removes it. SIGHUP reloads.

use crate::live::Live;
use sd_notify::NotifyState;
use std::{process::ExitCode, time::Duration};
use tidegate_proxy::Gate;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Sessions get this long to tear down once they are cut; what is left then is in the lease table.
const TEARDOWN: Duration = Duration::from_secs(20);

/// What the outside wants.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT. On SIGHUP the configuration is reloaded; what is wrong with it is logged there.
    pub(crate) async fn stop(&mut self, live: &Live) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    // systemd wants to know when it began (`Type=notify-reload`).
                    let began = NotifyState::monotonic_usec_now().ok();
                    notify(&[NotifyState::Reloading].into_iter().chain(began).collect::<Vec<_>>());
                    let _ = live.reload("SIGHUP").await;
                    notify(&[NotifyState::Ready]);
                }
            }
        }
    }

    /// Waits for SIGTERM or SIGINT, and for nothing else.
    async fn stop_again(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Lets who is in finish, then cuts. Exit code 0: the teardown of every session came to its end (where a target was away,
/// its lease is left for the next start); 1: some were not waited for.
pub(crate) async fn drain(gate: &Gate, signals: &mut Signals, drain: Duration) -> ExitCode {
    let sessions = gate.drain.visits();
    tracing::info!(sessions, "stopping: nobody new is let in");
    notify(&[NotifyState::Stopping, NotifyState::Status(&format!("{sessions} session(s) may finish"))]);
    gate.drain.begin(gate.now() + drain);
    tokio::select! {
        () = gate.drain.empty() => {}
        () = tokio::time::sleep(drain) => tracing::info!(sessions = gate.drain.visits(), "the time to finish is over"),
        () = signals.stop_again() => tracing::warn!(sessions = gate.drain.visits(), "told again to stop: cutting now"),
    }
    gate.stopping.cancel();
    gate.tasks.close();
    tokio::select! {
        () = gate.tasks.wait() => {
            let left = gate.store.leases(false).await.map_or(0, |leases| leases.len());
            if left == 0 {
                tracing::info!("stopped: nothing is left on any target");
            } else {
                tracing::warn!("stopped: {left} lease(s) are left for the next start");
            }
            return ExitCode::SUCCESS;
        }
        () = tokio::time::sleep(TEARDOWN) => tracing::warn!("stopped before every session was torn down: see the leases at the next start"),
        () = signals.stop_again() => tracing::warn!("stopped at once: see the leases at the next start"),
    }
    ExitCode::FAILURE
}

/// Tells systemd, where it listens (`NOTIFY_SOCKET`).
pub(crate) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
