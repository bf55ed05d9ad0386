//! `tidegate ca show`

use super::{print, state_dir};
use crate::cli::CaPart;
use std::{path::Path, process::ExitCode};
use tidegate_ca::{Keys, Part};

/// Prints one public part, ready to redirect.
pub(super) fn show(named: Option<&Path>, part: CaPart) -> anyhow::Result<ExitCode> {
    let keys = Keys::open(&state_dir(named)?.join("keys"))?;
    let part = match part {
        CaPart::SshUser => Part::SshUser,
        CaPart::SshHost => Part::SshHost,
        CaPart::SshHostKey => Part::SshHostKey,
        CaPart::X509 => Part::X509,
        CaPart::X509People => Part::X509People,
        CaPart::Ledger => Part::Ledger,
    };
    print(&format!("{}\n", keys.show(part)?.trim_end()))
}
