//! The person's terminal while the player has it: taken, drawn on, and put back as it was.
//!
//! What always holds: leaving the scope puts it back, errors and panics included (a panic's message comes after that); a signal
//! that would end the program ends the loop instead. Its size is believed up to a bound.

use ratatui::{
    DefaultTerminal, Frame, TerminalOptions, Viewport,
    crossterm::{
        cursor::Show,
        execute,
        terminal::{EnterAlternateScreen, size},
    },
    layout::Rect,
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    iterator,
};
use std::{
    io,
    process::{self, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    thread,
    time::Duration,
};

/// Nobody looks at more; and what is drawn takes memory for each cell.
const MOST: (u16, u16) = (1000, 500);
/// The loop has so long to see that a signal came.
const GRACE: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    pub(super) fn enter() -> io::Result<Self> {
        let area = area()?;
        // Puts the terminal back before a panic says what it has to say, too.
        let terminal = ratatui::try_init_with_options(TerminalOptions { viewport: Viewport::Fixed(area) });
        let mut screen = Self { terminal: terminal.inspect_err(|_| drop(ratatui::try_restore()))? };
        execute!(io::stdout(), EnterAlternateScreen)?;
        screen.terminal.resize(area)?;
        Ok(screen)
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// To what the terminal's size is now.
    pub(super) fn fit(&mut self) -> io::Result<()> {
        self.terminal.resize(area()?)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        put_back();
    }
}

/// Where the terminal is gone, there is nothing to put back.
fn put_back() {
    let _ = ratatui::try_restore();
    let _ = execute!(io::stdout(), Show);
}

fn area() -> io::Result<Rect> {
    let (columns, rows) = size()?;
    Ok(Rect::new(0, 0, columns.min(MOST.0), rows.min(MOST.1)))
}

/// Which signal came.
pub(super) struct Signals(Arc<AtomicI32>);

impl Signals {
    /// From now on these do not end the program at once.
    pub(super) fn listen() -> io::Result<Self> {
        let came = Arc::new(AtomicI32::new(0));
        let mut signals = iterator::Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
        let told = came.clone();
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                told.store(signal, Ordering::Relaxed);
                thread::sleep(GRACE);
                // Reading from a terminal that is gone never ends: then nobody looks.
                put_back();
                process::exit(128 + signal);
            }
        });
        Ok(Self(came))
    }

    /// How the program ends then, as shells have it.
    pub(super) fn came(&self) -> Option<ExitCode> {
        let signal = u8::try_from(self.0.load(Ordering::Relaxed)).unwrap_or_default();
        (signal > 0).then(|| ExitCode::from(128 + signal))
    }
}
