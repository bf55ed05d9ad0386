//! `[[peer]]`: other gateways whose ledgers' heads this one keeps and countersigns.

use super::{
    anchors::{URL_FIX, address, every},
    issuers::public_key,
    section::{Section, Whole},
    value::{self, PLAIN_NAME_FIX},
};
use crate::peers::Peer;

/// All of them. What was faulty is left out, and has said so.
pub(super) fn peers(whole: &Whole<'_>) -> Vec<Peer> {
    whole.main.sections("peer").iter().filter_map(peer).collect()
}

fn peer(section: &Section<'_>) -> Option<Peer> {
    const KEY_FIX: &str = "paste what `tidegate ca show ledger` prints there, or its 32 bytes in base64";
    let name = section.need("name", section.text("name"), "write name = \"gate-b\"");
    let name = name.and_then(|name| name.parse(value::plain_name, PLAIN_NAME_FIX));
    let url = section.need("url", section.text("url"), URL_FIX).and_then(|url| url.parse(address, URL_FIX));
    let key = section.need("public_key", section.text("public_key"), KEY_FIX);
    let key = key.and_then(|key| key.parse(public_key, KEY_FIX));
    let ca = section.text("ca").map(|ca| ca.path());
    let every = every(section);
    section.unknown();
    let name = name?;
    if let Some(other) = name.seen("peer", &name.value) {
        name.fault(format!("is the name of another peer already ({other})"), "give each a name of its own");
        return None;
    }
    Some(Peer { name: name.value, url: url?.value, ca, public_key: key?.value, every: every? })
}
