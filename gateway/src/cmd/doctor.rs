//! `tidegate doctor`

use super::{print, print_json};
use crate::{
    config,
    doctor::{self, Verdict},
    text::plain,
};
use std::{fmt::Write as _, path::Path, process::ExitCode};

/// Exit 0 if nothing failed (warnings are none), else 1.
pub(super) fn run(named: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let file = config::locate(named)?;
    let findings = doctor::examine(&file, &config::load(&file)?);
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
    if json {
        print_json(&findings)?;
        return Ok(ExitCode::from(u8::from(failed)));
    }
    let mut out = String::new();
    for finding in &findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "OK",
            Verdict::Warn => "WARN",
            Verdict::Fail => "FAIL",
        };
        writeln!(out, "{verdict:<5} {:<14} {}", finding.check, plain(&finding.said))?;
        if let Some(next) = &finding.next {
            writeln!(out, "{:20} next: {}", "", plain(next))?;
        }
    }
    print(&out)?;
    Ok(ExitCode::from(u8::from(failed)))
}
