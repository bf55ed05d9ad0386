//! `tidegate recording export`: a recording in the formats of others, or a picture of one moment.

use super::{
    keeping,
    recording::{attest, path},
};
use crate::{api::How, cli::Export};
use anyhow::{Context as _, ensure};
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::ExitCode,
};
use tidegate_recorder::{
    export::{self, ExportError},
    film::Film,
    keys::Identities,
    replay::Reel,
};

pub(super) fn run(named: Option<&Path>, wanted: &Export) -> anyhow::Result<ExitCode> {
    let path = path(named, &wanted.recording)?;
    attest(named, &path, wanted.key.as_deref(), wanted.unverified)?;
    let identities = Identities::from_file(&wanted.identity)?;
    let reel = Reel::new(&path, &identities, wanted.keystrokes).with_context(|| path.display().to_string())?;
    ensure!(
        !wanted.keystrokes || reel.shows_keystrokes(),
        "this key does not open what was typed in this session; export it without --keystrokes"
    );
    let what = wanted.format.whole().map_or_else(|| "png".to_owned(), |format| format.to_string());
    keeping::note(named, How::Exported, Some(&path), Some(what));
    match &wanted.output {
        None => write(&reel, wanted, &mut io::BufWriter::new(io::stdout().lock()))?,
        Some(file) => {
            // What was in a session is not for everybody on this host.
            let options = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).to_owned();
            let out = options.open(file).with_context(|| file.display().to_string())?;
            let mut out = io::BufWriter::new(out);
            write(&reel, wanted, &mut out)?;
            out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write(reel: &Reel, wanted: &Export, out: &mut dyn Write) -> Result<(), ExportError> {
    match wanted.format.whole() {
        Some(format) => export::export(|| reel.open(), format, wanted.channel, out),
        None => {
            let mut film = Film::new(reel.clone(), wanted.channel)?;
            let moment = wanted.at.map(|at| at.since(film.header().start)).unwrap_or_default();
            export::png(&mut film, moment, out)
        }
    }
}
