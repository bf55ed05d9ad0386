//! What the targets that make recordings share.

use std::{path::Path, sync::Arc};
use tidegate_recorder::{
    Header, Recorder, Settings,
    keys::{Identities, generate_identity},
};

/// A recorder that signs with [`signer`], and the auditor who can read what it makes.
pub fn recorder(dir: &Path, stream_limit: u64) -> (Recorder, Identities) {
    let (secret, public) = generate_identity();
    let settings = Settings { recipients: vec![public], stream_limit, ..Settings::default() };
    let recorder = Recorder::open(dir, settings, Arc::new(signer())).expect("a recorder");
    (recorder, Identities::parse(&secret).expect("a key"))
}

/// Always the same key.
pub fn signer() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[7; 32])
}

/// Of a session that began with the epoch.
pub fn header() -> Header {
    let text = || "s".to_owned();
    Header {
        session: text(),
        identity: text(),
        target: text(),
        access: text(),
        protocol: "ssh".to_owned(),
        grant: text(),
        gateway: text(),
        start: jiff::Timestamp::UNIX_EPOCH,
    }
}
