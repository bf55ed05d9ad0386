//! A transcript for people. What a terminal showed is read off an emulated screen as its lines scroll away; other
//! content is decoded as UTF-8. Everything else is told in lines with the seconds since the start.
//!
//! What always holds: a line that begins with a bracket is ours; recorded content begins with `| `, or follows it.

use super::{ExportError, Exporter, title};
use crate::{
    Event, Header, Stream, inert,
    replay::{Moment, What},
    screen::bounded,
    sentence::{marked_sentence, stream_name},
};
use avt::{Terminal, observer::Transcript};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

/// Screens are large, and a session could open many: further terminals are transcribed as plain content.
const MOST_TERMINALS: usize = 16;
const MOST_DECODERS: usize = 1024;

#[derive(Default)]
pub(super) struct Text {
    terminals: BTreeMap<u32, (Terminal, Transcript)>,
    decoders: BTreeMap<(u32, Stream), inert::Decoder>,
    /// Channels whose bytes other events tell.
    decoded: BTreeSet<u32>,
    /// Whose content was written last, if its line is not at an end.
    within: Option<(u32, Stream)>,
    at_start: bool,
}

impl Exporter for Text {
    fn begin(&mut self, header: &Header, out: &mut dyn Write) -> Result<(), ExportError> {
        self.at_start = true;
        Ok(writeln!(out, "{}", title(header))?)
    }

    fn take(&mut self, moment: Moment, out: &mut dyn Write) -> Result<(), ExportError> {
        match &moment.what {
            What::Event(Event::Data { channel, stream: Stream::Stdin | Stream::Stdout, .. })
            | What::Counted { channel, stream: Stream::Stdin | Stream::Stdout, .. }
                if self.decoded.contains(channel) =>
            {
                return Ok(());
            }
            What::Event(Event::Decoded { channel, .. }) => {
                self.decoded.insert(*channel);
            }
            What::Event(Event::Data { channel, stream, data, .. }) => {
                return self.content(*channel, *stream, data, moment.elapsed.as_secs_f64(), out);
            }
            What::Event(Event::Opened { channel, terminal: Some((_, columns, rows)), .. }) => {
                self.leave(*channel, out)?;
                let (columns, rows) = bounded(*columns, *rows);
                let terminal = Terminal::new(columns, rows).ok().filter(|_| self.terminals.len() < MOST_TERMINALS);
                self.terminals.extend(terminal.map(|terminal| (*channel, (terminal, Transcript::new()))));
            }
            What::Event(Event::Resized { channel, columns, rows }) => {
                if let Some((terminal, transcript)) = self.terminals.get_mut(channel) {
                    let (columns, rows) = bounded(*columns, *rows);
                    let gone = terminal.resize_with(columns, rows, transcript);
                    self.lines(gone, out)?;
                }
            }
            What::Event(Event::Exited { channel, .. }) => self.leave(*channel, out)?,
            What::Event(Event::Closed { channel, .. }) => {
                self.decoded.remove(channel);
                self.leave(*channel, out)?;
            }
            What::End | What::Truncated { .. } => {
                for channel in self.terminals.keys().copied().collect::<Vec<_>>() {
                    self.leave(channel, out)?;
                }
            }
            _ => {}
        }
        if let Some(line) = marked_sentence(&moment) {
            self.note(&line, moment.elapsed.as_secs_f64(), out)?;
        }
        Ok(())
    }
}

impl Text {
    fn content(
        &mut self,
        channel: u32,
        stream: Stream,
        data: &[u8],
        seconds: f64,
        out: &mut dyn Write,
    ) -> Result<(), ExportError> {
        if self.decoders.len() >= MOST_DECODERS {
            self.decoders.clear();
        }
        let text = self.decoders.entry((channel, stream)).or_default().decode(data);
        if stream == Stream::Stdin && self.terminals.contains_key(&channel) {
            return self.note(&format!("channel {channel} typed: {}", inert::line(&text)), seconds, out);
        }
        if let Some((terminal, transcript)) = self.terminals.get_mut(&channel) {
            let gone = terminal.feed_with(text.as_str(), transcript);
            return self.lines(gone, out);
        }
        if self.within != Some((channel, stream)) {
            self.note(&format!("channel {channel} {}:", stream_name(stream)), seconds, out)?;
            self.within = Some((channel, stream));
        }
        let text = inert::marked(&inert::lines(&text), self.at_start);
        self.at_start = text.chars().next_back().map_or(self.at_start, |last| last == '\n');
        Ok(out.write_all(text.as_bytes())?)
    }

    /// The rest of a terminal's lines, when it is over.
    fn leave(&mut self, channel: u32, out: &mut dyn Write) -> Result<(), ExportError> {
        let Some((terminal, transcript)) = self.terminals.remove(&channel) else { return Ok(()) };
        self.lines(transcript.finish(&terminal), out)
    }

    fn lines(&mut self, lines: Vec<String>, out: &mut dyn Write) -> Result<(), ExportError> {
        if !lines.is_empty() {
            self.line_start(out)?;
        }
        for line in lines {
            writeln!(out, "{}{}", inert::CONTENT, inert::line(&line))?;
        }
        Ok(())
    }

    fn note(&mut self, line: &str, seconds: f64, out: &mut dyn Write) -> Result<(), ExportError> {
        self.line_start(out)?;
        Ok(writeln!(out, "[{seconds:.3}] {line}")?)
    }

    fn line_start(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.within = None;
        if std::mem::replace(&mut self.at_start, true) { Ok(()) } else { writeln!(out) }
    }
}
