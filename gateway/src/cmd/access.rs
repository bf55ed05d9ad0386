//! `tidegate access …`

use super::{moment, print, print_json};
use crate::{
    access::Report,
    api::client::Client,
    cli::AccessCommand,
    text::{plain, table},
};
use std::{fmt::Write as _, process::ExitCode};
use tidegate_grants::IdentityName;

pub(super) fn run(client: &Client, command: AccessCommand) -> anyhow::Result<ExitCode> {
    let AccessCommand::Report { days, csv, json } = command;
    let report: Report = client.get(&format!("/v1/access/report?days={days}"))?;
    if json.json {
        return print_json(&report);
    }
    if csv {
        return print(&report.csv());
    }
    print(&shown(&report, days)?)
}

fn names(people: &[IdentityName]) -> String {
    people.iter().map(IdentityName::as_str).collect::<Vec<_>>().join(" ")
}

fn shown(report: &Report, days: u16) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let rows: Vec<_> = report
        .entitlements
        .iter()
        .map(|of| {
            let last = of.last.map_or_else(|| "never".to_owned(), moment);
            [of.entitlement.to_string(), of.sessions.to_string(), last, names(&of.may_ask), names(&of.unused_by)]
        })
        .collect();
    writeln!(out, "Entitlements, and their use in the last {days} days")?;
    out.push_str(&table(["ENTITLEMENT", "SESSIONS", "LAST", "MAY ASK", "DID NOT USE IT"], &rows));
    let rows: Vec<_> = report
        .held
        .iter()
        .map(|held| {
            let (who, name, target) = (&held.identity, &held.entitlement, &held.target);
            [who.to_string(), name.to_string(), target.to_string(), moment(held.until), held.approved_by.join(" ")]
        })
        .collect();
    writeln!(out, "\nWhat is held now")?;
    out.push_str(&table(["IDENTITY", "ENTITLEMENT", "TARGET", "UNTIL", "APPROVED BY"], &rows));
    let rows: Vec<_> = report
        .weeks
        .iter()
        .map(|week| {
            [week.week.clone(), week.sessions.to_string(), week.denials.to_string(), week.break_glass.to_string()]
        })
        .collect();
    writeln!(out, "\nWeek by week")?;
    out.push_str(&table(["WEEK", "SESSIONS", "DENIALS", "BREAK-GLASS"], &rows));
    writeln!(out, "\nApprovals within seconds of the request")?;
    for stamp in &report.stamps {
        let (by, who) = (plain(stamp.by.as_str()), plain(stamp.identity.as_str()));
        writeln!(
            out,
            "{by} approved {} for {who} after {} s ({})",
            stamp.entitlement,
            stamp.seconds,
            stamp.request.short()
        )?;
    }
    Ok(out)
}
