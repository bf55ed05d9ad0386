//! `tidegate user mfa …`

use super::{moment, print, print_json};
use crate::{
    api::{FactorBody, FactorGiven, FactorRemoved, client::Client},
    cli::MfaCommand,
    text,
};
use std::{io::Write as _, process::ExitCode};
use tidegate_grants::FactorView;

pub(super) fn run(client: &Client, command: MfaCommand) -> anyhow::Result<ExitCode> {
    match command {
        MfaCommand::Enroll { name, replace, json } => {
            let given: FactorGiven = client.post(&format!("/v1/users/{name}/mfa"), &FactorBody { replace })?;
            if json.json {
                return print_json(&given);
            }
            writeln!(
                std::io::stderr(),
                "shown this once: the address for {name}'s authenticator app (as a QR code: `qrencode -t utf8`), and behind it \
                 {} recovery codes, each good once; hand them to {name} and to nobody else",
                given.recovery.len()
            )?;
            print(&format!("{}\n{}\n", given.uri, given.recovery.join("\n")))
        }
        MfaCommand::List { json } => list(client, json.json),
        MfaCommand::Remove { name } => {
            let FactorRemoved { identity } = client.post(&format!("/v1/users/{name}/mfa/remove"), &())?;
            print(&format!("{identity}\n"))
        }
    }
}

fn list(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let factors: Vec<FactorView> = client.get("/v1/mfa")?;
    if json {
        return print_json(&factors);
    }
    let row = |factor: &FactorView| {
        [
            factor.identity.to_string(),
            moment(factor.added_at),
            factor.added_by.to_string(),
            if factor.codes { factor.recovery_codes.to_string() } else { "none: a security key".to_owned() },
            factor.proven_at.map_or_else(|| "never".to_owned(), moment),
        ]
    };
    let rows: Vec<[String; 5]> = factors.iter().map(row).collect();
    print(&text::table(["USER", "SINCE", "BY", "RECOVERY CODES", "LAST PROVEN"], &rows))
}
