//! `tidegate token …`

use super::{lease::word, moment, print, print_json};
use crate::{
    api::{
        ReasonBody, TokenBody, TokenGiven, TokenRevoked,
        client::{Client, segment},
    },
    cli::TokenCommand,
    config::show_duration,
    text,
};
use std::{io::Write as _, process::ExitCode};
use tidegate_grants::TokenView;

pub(super) fn run(client: &Client, command: TokenCommand) -> anyhow::Result<ExitCode> {
    match command {
        TokenCommand::Issue { user, label, scope, duration } => {
            let made: TokenGiven =
                client.post("/v1/tokens", &TokenBody { user, label, scope, duration: show_duration(duration) })?;
            // The secret alone on stdout, as `ssh gate password` does it.
            writeln!(
                std::io::stderr(),
                "token {}, good until {}; it is shown this once\nuse it: TIDEGATE_TOKEN=… tidegate --gateway URL …; revoke it: tidegate token revoke {}",
                made.id,
                moment(made.expires),
                made.id
            )?;
            print(&format!("{}\n", made.secret))
        }
        TokenCommand::List { json } => list(client, json.json),
        TokenCommand::Revoke { id, reason } => {
            let TokenRevoked { id } =
                client.post(&format!("/v1/tokens/{}/revoke", segment(&id)), &ReasonBody { reason })?;
            print(&format!("{id}\n"))
        }
    }
}

fn list(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let tokens: Vec<TokenView> = client.list("/v1/tokens")?;
    if json {
        return print_json(&tokens);
    }
    let row = |token: &TokenView| {
        [
            token.id.short(),
            token.identity.to_string(),
            token.scope.to_string(),
            word(&token.state),
            moment(token.expires),
            token.created_by.to_string(),
            token.label.clone(),
        ]
    };
    let rows: Vec<[String; 7]> = tokens.iter().map(row).collect();
    print(&text::table(["ID", "USER", "SCOPE", "STATE", "ENDS", "BY", "LABEL"], &rows))
}
