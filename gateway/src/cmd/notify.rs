//! `tidegate notify …`

use super::{moment, print, print_json};
use crate::{
    api::{NotifyRetried, NotifyRetry, client::Client},
    cli::NotifyCommand,
    notify::ChannelView,
    text::plain,
};
use std::{fmt::Write as _, process::ExitCode};

pub(super) fn run(client: &Client, command: NotifyCommand) -> anyhow::Result<ExitCode> {
    match command {
        NotifyCommand::List { json } => list(client, json.json),
        NotifyCommand::Retry { channel } => {
            let NotifyRetried { letters } = client.post("/v1/notify/retry", &NotifyRetry { channel })?;
            print(&format!("{letters} dead letter(s) are tried again\n"))
        }
    }
}

fn list(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let channels: Vec<ChannelView> = client.get("/v1/notify")?;
    if json {
        return print_json(&channels);
    }
    let mut out = String::new();
    for channel in &channels {
        writeln!(out, "{} ({}): told up to entry {}", channel.name, channel.kinds.join(", "), channel.seq)?;
        if let Some(failing) = &channel.failing {
            writeln!(out, "  waits: {}", plain(failing))?;
        }
        for dead in &channel.dead {
            writeln!(out, "  dead   {} {} {}: {}", dead.seq, moment(dead.at), plain(&dead.kind), plain(&dead.error))?;
        }
    }
    print(&out)
}
