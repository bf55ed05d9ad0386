//! `tidegate ledger …`: on files, without a gateway.

use super::{cef, moment, print, print_json, short, state_dir, verification_key, verify::read_anchors};
use crate::{
    cli::{LedgerCommand, LedgerFormat},
    text,
};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    thread::sleep,
    time::Duration,
};
use tidegate_grants::{
    ledger::{Entry, proof::Line},
    store,
};

/// How often somebody who follows is told what is new.
const LOOK: Duration = Duration::from_millis(250);

pub(super) fn run(named: Option<&Path>, command: LedgerCommand) -> anyhow::Result<ExitCode> {
    let state = state_dir(named)?;
    match command {
        LedgerCommand::Verify { key, anchors, witnesses, json } => {
            verify(&state, key.as_deref(), (&anchors, &witnesses), json.json)
        }
        LedgerCommand::Tail { lines, follow: true, json } => follow(&state, lines, json.json),
        LedgerCommand::Tail { lines, follow: false, json } => tail(&state, lines, json.json),
        LedgerCommand::Export { format } => export(&state, format),
    }
}

/// Exit 0 only if nothing was found.
fn verify(
    state: &Path,
    key: Option<&Path>,
    (anchors, witnesses): (&[PathBuf], &[PathBuf]),
    json: bool,
) -> anyhow::Result<ExitCode> {
    let key = verification_key(state, key)?;
    // Read before the store, which only grows: what is anchored meanwhile is in it.
    let (anchors, seen) = read_anchors(anchors, witnesses, &key)?;
    let mut verdict = store::verify(state, key.to_bytes())?;
    verdict.faults.extend(store::hold_to(state, &anchors)?);
    if json {
        print_json(&verdict)?;
    } else if verdict.intact() {
        let anchored = match anchors.heads().count() {
            0 => String::new(),
            heads => format!(", and so do {heads} heads that went to anchors"),
        };
        let mut out = format!("intact: {} entries, each record agrees with them{anchored}\n", verdict.entries);
        for line in seen {
            writeln!(out, "{}", text::plain(&line))?;
        }
        print(&out)?;
    } else {
        let mut out = String::new();
        for fault in &verdict.faults {
            writeln!(out, "{}", text::plain(fault))?;
        }
        writeln!(out, "NOT intact: {} fault(s); {} entries hold", verdict.faults.len(), verdict.entries)?;
        print(&out)?;
    }
    Ok(ExitCode::from(u8::from(!verdict.intact())))
}

fn tail(state: &Path, lines: u64, json: bool) -> anyhow::Result<ExitCode> {
    let entries = store::read(state, Some(lines))?;
    if json {
        return print_json(&entries);
    }
    let rows: Vec<[String; 7]> = entries.iter().map(row).collect();
    print(&text::table(["SEQ", "AT", "WHAT", "WHO", "TARGET", "SESSION", "DETAIL"], &rows))
}

fn row(entry: &Entry) -> [String; 7] {
    let event = &entry.event;
    let detail = if event.detail.is_null() { String::new() } else { event.detail.to_string() };
    [
        format!("{}{}", entry.node, entry.seq),
        moment(entry.at),
        event.kind.clone(),
        event.identity.clone().unwrap_or_default(),
        event.target.as_ref().map(ToString::to_string).unwrap_or_default(),
        event.session.map(|session| short(&session.to_string())).unwrap_or_default(),
        detail,
    ]
}

/// Goes on until nobody reads any more.
fn follow(state: &Path, lines: u64, json: bool) -> anyhow::Result<ExitCode> {
    let mut behind = 0;
    let mut shown: Vec<Entry> = Vec::new();
    let mut first = true;
    loop {
        (behind, _) = store::export(state, behind, |exported| {
            shown.push(exported.entry);
            anyhow::Ok(())
        })?;
        let skipped = if first { shown.len().saturating_sub(usize::try_from(lines).unwrap_or(usize::MAX)) } else { 0 };
        for entry in shown.drain(..).skip(skipped) {
            let line = if json {
                serde_json::to_string(&entry)?
            } else {
                text::plain(row(&entry).join("  ").trim_end()).into_owned()
            };
            print(&format!("{line}\n"))?;
        }
        first = false;
        sleep(LOOK);
    }
}

fn export(state: &Path, format: LedgerFormat) -> anyhow::Result<ExitCode> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let (_, heads) = store::export(state, 0, |exported| {
        match format {
            LedgerFormat::Jsonl => serde_json::to_writer(&mut out, &exported)?,
            LedgerFormat::Cef => out.write_all(cef::line(&exported.entry).as_bytes())?,
        }
        out.write_all(b"\n")?;
        anyhow::Ok(())
    })?;
    for head in heads.into_iter().filter(|_| format == LedgerFormat::Jsonl) {
        serde_json::to_writer(&mut out, &Line::Head { head })?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
