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

/// Puts a new key before the others, or drops those behind the first.
pub(super) fn rotate_mfa(named: Option<&Path>, drop_old: bool) -> anyhow::Result<ExitCode> {
    let count = Keys::rotate_mfa(&state_dir(named)?.join("keys"), drop_old)?;
    if drop_old {
        return print("one key is left; a backup that was made before opens with the older ones alone\n");
    }
    print(&format!(
        "{count} keys now; restart the gateway, which seals all second factors under the new one, then: tidegate ca rotate mfa --drop-old\n"
    ))
}
