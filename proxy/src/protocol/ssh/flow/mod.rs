//! Flow control around russh 0.65.1: everything that is special about it is in this folder, and it goes away when russh
//! credits a window when data is *consumed* (its pull request 730) instead of when it arrives.
//!
//! What is wrong with the plain way: russh re-opens the receive window as soon as data arrives, and its session loop
//! awaits a bounded queue per channel. A proxy has two such loops, and they can wait for each other: a plain relay of
//! 300 MiB through `cat` hangs in every run. With longer queues one stalled reader takes gigabytes.
//!
//! What always holds instead:
//!
//! - **No handler awaits.** What arrives goes into a byte-counted [`Queue`] per channel and direction. russh's own
//!   queue is never used: the read half of each channel is dropped at once.
//! - **Out only through the write half** of a channel, which reserves the peer's window first. `Handle::data` and
//!   `Session::data` overrun it, into a buffer that then blocks every channel of the connection.
//! - **Towards the target** `adjust_window` has no effect (russh issue 770). So a connection to the target carries one
//!   channel at a time, and its stream is not read while the queue holds more than [`HIGH`] bytes ([`Gated`]).
//! - **Towards the client** several channels share a connection, so reading cannot stop. [`Windows`] keeps the windows at
//!   [`OPEN`] while nobody is stalled and at [`TRICKLE`] while somebody is. Never at 0: a closed window cannot be opened
//!   again, because russh asks only when data arrives. The trickle is the probe. [`Held`] delays the read
//!   after a trickle by [`PROBE`], or an idle stall would burn a core.
//! - **A hard cap.** A peer that ignores its window loses the channel, with a message. One that keeps to it stays below
//!   [`CAP`]: russh asks for the next window only after it has granted one, so to [`HIGH`] come half of an [`OPEN`] window
//!   that was granted before the stall, and a whole one that was granted in it.
//! - **A budget** for all channels of a client connection, both ways. Once they hold [`TIGHT`] together, each may be only
//!   [`SMALL`] behind before it is stalled. Their windows come out of [`SHARED`], and a new channel starts with [`START`]:
//!   so peers that keep to their windows stay below [`BUDGET`], however many channels they open, and those that do not
//!   lose the channels that go beyond it.
//!
//! - **New keys** that we ask for find no more on its way than russh bears: see [`START`].
//!
//! Known limits: several channels that begin at once may have more on its way than that for their first [`START`]; new keys in
//! that moment end the connection. Beside one stalled upload, other uploads of the same connection slow to a trickle. A target whose stream
//! is gated is not heard: it gets a sign of life on a timer (see `channel`), but its WINDOW_ADJUST waits, too, so a program
//! that writes without end *while* it reads can stick where its reader has stopped.

mod queue;
mod stream;
mod windows;

pub(super) use queue::{Budget, Item, Queue};
pub(super) use stream::{Cut, Gated, Held, Hold};
pub(super) use windows::{Stalled, Windows};

use super::line::MOST_LINES;
use std::time::Duration;

/// A queue with more bytes than this is stalled. Its stream is read again at half of it.
const HIGH: usize = 1 << 20;
/// The same where the budget is tight.
const SMALL: usize = 128 << 10;
/// A queue with more bytes than this ends its channel. (4 MiB ended uploads of OpenSSH's client.)
const CAP: usize = 8 << 20;
const _: () = assert!(CAP >= HIGH + OPEN as usize / 2 + OPEN as usize + (1 << 20));
/// What the queues of a client connection hold together when it is time to save.
const TIGHT: usize = 16 << 20;
/// What they never hold together.
const BUDGET: usize = 80 << 20;
/// The window of every channel while nobody is stalled. (16 MiB made it slower.)
pub(super) const OPEN: u32 = 2 << 20;
/// What all channels of a client share for their windows.
const SHARED: u32 = OPEN;
/// What each gets all the same.
const LEAST: u32 = 32 << 10;
/// With what each starts. While we ask a client for new keys, russh takes twice as much that was on its way already, and hangs
/// up on more: so it is more than half of [`SHARED`], which is what may be on its way.
pub(super) const START: u32 = SHARED / 2 + (64 << 10);
const _: () = assert!(MOST_LINES * START as usize + TIGHT / 2 <= BUDGET);
/// The window of every channel while somebody is stalled.
const TRICKLE: u32 = 2;
/// How long the next read waits after a trickle.
const PROBE: Duration = Duration::from_millis(10);
/// A connection that carried more than a trickle this lately is not held up.
const BUSY: Duration = Duration::from_millis(50);
