//! `tidegate ledger …`: on files, without a gateway.

use super::{moment, print, print_json, short, state_dir, verification_key};
use crate::{cli::LedgerCommand, text};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};
use tidegate_grants::{ledger::Entry, store};

pub(super) fn run(named: Option<&Path>, command: LedgerCommand) -> anyhow::Result<ExitCode> {
    let state = state_dir(named)?;
    match command {
        LedgerCommand::Verify { key, json } => verify(&state, key.as_deref(), json.json),
        LedgerCommand::Tail { lines, json } => tail(&state, lines, json.json),
        LedgerCommand::Export => export(&state),
    }
}

/// Exit 0 only if nothing was found.
fn verify(state: &Path, key: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let verdict = store::verify(state, verification_key(state, key)?.to_bytes())?;
    if json {
        print_json(&verdict)?;
    } else if verdict.intact() {
        print(&format!("intact: {} entries, each record agrees with them\n", verdict.entries))?;
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

fn export(state: &Path) -> anyhow::Result<ExitCode> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for entry in store::read(state, None)? {
        serde_json::to_writer(&mut out, &entry)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
