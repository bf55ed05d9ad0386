//! What happened, in one harmless line each: for transcripts, for comments in SQL, and for playing SQL sessions.

use crate::{Event, FileEvent, Stream, event::Parameter, frame, inert, replay::What};

/// What a stream is called.
pub(crate) fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdin => "stdin",
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
        Stream::CopyIn => "copy-in",
        Stream::CopyOut => "copy-out",
        Stream::FromClient => "from-client",
        Stream::FromTarget => "from-target",
    }
}

/// One line, without a line break; `None` for what needs none.
pub(crate) fn sentence(what: &What) -> Option<String> {
    Some(match what {
        What::Event(event) => return event_sentence(event),
        // Protocol bytes whose meaning other events tell: their total is enough.
        What::Counted { stream: Stream::FromClient | Stream::FromTarget, .. } => return None,
        What::Counted { channel, stream, bytes, total, .. } => {
            format!("channel {channel} {}: {bytes} bytes not kept, {total} so far", stream_name(*stream))
        }
        What::Total { channel, stream, total, kept, digest } => {
            let (name, digest) = (stream_name(*stream), frame::hex(digest));
            format!("channel {channel} {name}: {total} bytes in all, {kept} kept, SHA-256 {digest}")
        }
        What::Withheld { .. } => return None,
        What::End => "end of the recording".to_owned(),
        What::Truncated { after } => format!("TRUNCATED after frame {after}: the recording breaks off here"),
    })
}

/// Whether its sentence begins with words of the person or the target, so that it could read like one of ours.
pub(crate) fn is_content(what: &What) -> bool {
    matches!(
        what,
        What::Event(Event::Statement { prepared: None, .. } | Event::Completed { .. } | Event::Reported { .. })
    )
}

/// The sentence, marked if it is content.
pub(crate) fn marked_sentence(what: &What) -> Option<String> {
    sentence(what).map(|line| if is_content(what) { inert::CONTENT.to_owned() + &line } else { line })
}

fn event_sentence(event: &Event) -> Option<String> {
    let text = match event {
        Event::Opened { channel, what, command, reached, terminal, environment, connection: _ } => {
            let command = command.as_ref().map(|command| format!(" {command}")).unwrap_or_default();
            let terminal = terminal.as_ref().map(|(term, columns, rows)| format!(", {term} {columns}x{rows}"));
            let settings: String = environment.iter().map(|(name, value)| format!(", {name}={value}")).collect();
            let reached = reached.as_ref().map(|address| format!(", at {address}")).unwrap_or_default();
            format!("channel {channel}: {what}{command}{reached}{}{settings}", terminal.unwrap_or_default())
        }
        Event::Resized { channel, columns, rows } => format!("channel {channel}: resized to {columns}x{rows}"),
        Event::Data { .. } => return None,
        Event::Eof { channel, stream } => format!("channel {channel} {}: end", stream_name(*stream)),
        Event::Signal { channel, name } => format!("channel {channel}: signal {name} sent"),
        Event::Exited { channel, status, signal } => match (status, signal) {
            (_, Some(signal)) => format!("channel {channel}: killed by {signal}"),
            (Some(status), None) => format!("channel {channel}: exit status {status}"),
            (None, None) => format!("channel {channel}: exited"),
        },
        Event::Decoded { channel, protocol } => format!("channel {channel}: understood as {protocol}"),
        Event::File(file) => file_sentence(file),
        Event::Closed { channel } => format!("channel {channel}: closed"),
        Event::Statement { text, prepared: None } => text.clone(),
        Event::Statement { text, prepared: Some(name) } => format!("prepare {}: {text}", quoted(name)),
        Event::Bound { prepared, portal, parameters } => {
            let values: Vec<_> = (1..).zip(parameters).map(|(n, value)| format!("${n} = {}", literal(value))).collect();
            let portal = if portal.is_empty() { String::new() } else { format!(" as {}", quoted(portal)) };
            format!("bind {}{portal}: {}", quoted(prepared), values.join(", "))
        }
        Event::Executed { portal, rows: 0 } => format!("execute {}", quoted(portal)),
        Event::Executed { portal, rows } => format!("execute {}, at most {rows} rows", quoted(portal)),
        Event::Completed { tag, rows } => format!("{tag} ({rows} rows sent)"),
        Event::Reported { severity, code, message } => format!("{severity} {code}: {message}"),
        Event::Transaction { status: 'I' } => return None,
        Event::Transaction { status: 'T' } => "in a transaction".to_owned(),
        Event::Transaction { status: 'E' } => "in a failed transaction".to_owned(),
        Event::Transaction { status } => format!("transaction status {status}"),
        Event::Cancelled => "the running statement was cancelled by the person".to_owned(),
        Event::Said { text } => format!("gateway: {text}"),
    };
    Some(inert::line(&text))
}

/// Paths are quoted, so that none reads like the rest of the line.
fn file_sentence(file: &FileEvent) -> String {
    let FileEvent { channel, op, path, to, detail, bytes, size, ranges, sha256, fault } = file;
    let mut text = format!("channel {channel}: {op} {path:?}");
    text.extend(to.iter().map(|to| format!(" to {to:?}")));
    text.extend(detail.iter().map(|detail| format!(" ({detail})")));
    match (bytes, size) {
        (Some(bytes), Some(size)) if bytes != size => text.push_str(&format!(": {bytes} bytes of {size}")),
        (Some(bytes), _) => text.push_str(&format!(": {bytes} bytes")),
        (None, _) => {}
    }
    if let Some(ranges) = ranges {
        let ranges: Vec<String> = ranges.iter().map(|(from, to)| format!("{from} to {to}")).collect();
        text.push_str(&format!(", from {}", ranges.join(", ")));
    }
    text.extend(sha256.iter().map(|digest| format!(", SHA-256 {digest}")));
    text.extend(fault.iter().map(|fault| format!(": {fault}")));
    text
}

fn quoted(name: &str) -> String {
    if name.is_empty() { "the unnamed one".to_owned() } else { format!("\"{name}\"") }
}

fn literal(value: &Parameter) -> String {
    match value {
        Parameter::Null => "NULL".to_owned(),
        Parameter::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Parameter::Binary(hex) => format!("'\\x{hex}'"),
    }
}
