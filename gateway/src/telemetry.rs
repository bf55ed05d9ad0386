//! Logs go to stderr, one line each, and nothing that a peer sent can act on the terminal or forge a line.
//!
//! `TIDEGATE_LOG`, else `RUST_LOG`, says what is logged (`info`, `tidegate_proxy=debug`, …). What auditors need goes to
//! the ledger, not here.

use crate::text::plain;
use std::io::{self, Write};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Starts logging. Called once, by `serve`.
pub(crate) fn start() {
    let wanted = ["TIDEGATE_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok());
    let filter = EnvFilter::new(wanted.as_deref().unwrap_or("info,russh=warn"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Plain);
    // A second start would be a second subscriber: the first stays.
    let _ = subscriber.try_init();
}

/// Writes each event as one line to stderr, control characters escaped.
#[derive(Debug, Clone, Copy)]
struct Plain;

impl MakeWriter<'_> for Plain {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        *self
    }
}

impl Write for Plain {
    /// `tracing_subscriber::fmt` hands over a whole event at once, its newline last.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(line(event).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn line(event: &[u8]) -> String {
    let text = String::from_utf8_lossy(event);
    format!("{}\n", plain(text.strip_suffix('\n').unwrap_or(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_line_stays_inside_its_own() {
        assert_eq!(
            line(b"refused name=a\nINFO all is well\x1b[2J\n"),
            "refused name=a\\u{a}INFO all is well\\u{1b}[2J\n"
        );
    }
}
