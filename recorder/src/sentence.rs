//! What happened, in one harmless line each: for transcripts, for comments in SQL, and for playing SQL sessions.

use crate::{
    Event, FileEvent, Stream,
    event::{Column, Ended, Parameter},
    frame, inert,
    replay::{Moment, What},
};

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

/// The sentence as a line of a transcript: its number and how long it took, then what it says, marked if it is content.
pub(crate) fn marked_sentence(moment: &Moment) -> Option<String> {
    let line = sentence(&moment.what)?;
    let ours = note(moment);
    let space = if ours.is_empty() { "" } else { " " };
    let mark = if is_content(&moment.what) { inert::CONTENT } else { "" };
    Some(format!("{ours}{space}{mark}{line}"))
}

/// The number of what was sent, or of what this answers, and how long it took; empty if neither is known.
pub(crate) fn note(moment: &Moment) -> String {
    let number = match &moment.what {
        What::Event(Event::Statement { number, .. } | Event::Bound { number, .. } | Event::Executed { number, .. }) => {
            *number
        }
        What::Event(
            Event::Completed { of, .. }
            | Event::Reported { of, .. }
            | Event::Columns { of, .. }
            | Event::Row { of, .. },
        ) => *of,
        _ => None,
    };
    let number = number.map(|number| format!("#{number}"));
    let took = moment.took.map(|took| format!("{:.3} ms", took.as_secs_f64() * 1000.0));
    number.into_iter().chain(took).collect::<Vec<_>>().join(" ")
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
        Event::Closed { channel, up: 0, down: 0 } => format!("channel {channel}: closed"),
        Event::Closed { channel, up, down } => {
            format!("channel {channel}: closed, with {up} bytes from the client and {down} to it")
        }
        Event::Statement { text, prepared: None, .. } => text.clone(),
        Event::Statement { text, prepared: Some(name), .. } => format!("prepare {}: {text}", quoted(name)),
        Event::Bound { prepared, portal, parameters, statement, .. } => {
            let values: Vec<_> = (1..).zip(parameters).map(|(n, value)| format!("${n} = {}", literal(value))).collect();
            let portal = if portal.is_empty() { String::new() } else { format!(" as {}", quoted(portal)) };
            format!("bind {}{}{portal}: {}", quoted(prepared), numbered(*statement), values.join(", "))
        }
        Event::Executed { portal, rows, statement, .. } => {
            let most = if *rows == 0 { String::new() } else { format!(", at most {rows} rows") };
            format!("execute {}{}{most}", quoted(portal), numbered(*statement))
        }
        Event::Columns { columns, .. } => {
            let name =
                |column: &Column| if column.masked { format!("{} (masked)", column.name) } else { column.name.clone() };
            format!("columns: {}", columns.iter().map(name).collect::<Vec<_>>().join(", "))
        }
        Event::Row { values, .. } => format!("row: {}", values.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Event::Completed { tag, rows, .. } => format!("{tag} ({rows} rows sent)"),
        Event::Reported { severity, code, message, .. } => format!("{severity} {code}: {message}"),
        Event::Notified { name, payload, process } => {
            format!("notified of {} by backend {process}: {}", quoted(name), quote(payload))
        }
        Event::Transaction { status, ended } => return transaction(*status, *ended),
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

/// Idle needs no word, unless something ended.
fn transaction(status: char, ended: Option<Ended>) -> Option<String> {
    let ended = ended.map(|ended| match ended {
        Ended::Committed => "committed",
        Ended::RolledBack => "rolled back",
        Ended::Prepared => "prepared, to be committed later",
    });
    let now = match status {
        'I' => return ended.map(str::to_owned),
        'T' => "in a transaction".to_owned(),
        'E' => "in a failed transaction".to_owned(),
        other => inert::line(&format!("transaction status {other}")),
    };
    Some(ended.map_or(now.clone(), |ended| format!("{ended}; {now}")))
}

fn quoted(name: &str) -> String {
    if name.is_empty() { "the unnamed one".to_owned() } else { format!("\"{name}\"") }
}

fn numbered(number: Option<u64>) -> String {
    number.map(|number| format!(" (#{number})")).unwrap_or_default()
}

/// A parameter for the eyes.
fn literal(value: &Parameter) -> String {
    match value {
        Parameter::Null => "NULL".to_owned(),
        Parameter::Text(text) => quote(text),
        Parameter::Typed { kind, text } => format!("{}::{kind}", quote(text)),
        Parameter::Binary(hex) => format!("'\\x{hex}' (binary, of a type that is not known)"),
        Parameter::Masked => "(masked)".to_owned(),
        Parameter::Raw { oid, hex } => format!("'\\x{hex}' (binary, of the type with OID {oid})"),
    }
}

/// As a string of SQL.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
