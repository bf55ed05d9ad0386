//! What fuzzing reaches of the relay: see `tests/fuzz`.

use super::{
    frame::{Framer, Sender},
    watch::{Found, Talk, Watch},
};
use tidegate_grants::{Keeps, Results};
use tidegate_recorder::Event;

/// What is recorded of these bytes, fed in pieces of `size`: events, data of COPY, and what is kept as it came, of the client and
/// of the target. Once with all that can be kept, and once with masks.
pub fn understood(client: &[u8], target: &[u8], size: usize) -> Vec<(Vec<Event>, Vec<u8>, Vec<u8>)> {
    let masks = ["password".parse()].into_iter().flatten().collect();
    [Keeps { results: Results::All, ..Keeps::default() }, Keeps { results: Results::Head, masks }]
        .into_iter()
        .flat_map(|keeps| {
            let talk = Talk::new(keeps);
            [(Sender::Client, client), (Sender::Target, target)].map(|(sender, bytes)| of(sender, &talk, bytes, size))
        })
        .collect()
}

fn of(sender: Sender, talk: &Talk, bytes: &[u8], size: usize) -> (Vec<Event>, Vec<u8>, Vec<u8>) {
    let (mut framer, mut watch) = (Framer::new(sender), Watch::new(sender, talk.clone()));
    let (mut events, mut copied, mut kept, mut buffer) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for piece in bytes.chunks(size) {
        buffer.extend_from_slice(piece);
        let walk = framer.walk(&buffer, |piece| watch.see(piece));
        for found in std::mem::take(&mut watch.found) {
            match found {
                Found::Event(event) => events.push(event),
                Found::Copied(range) => copied.extend_from_slice(buffer.get(range).unwrap_or_default()),
                Found::Kept(range) => kept.extend_from_slice(buffer.get(range).unwrap_or_default()),
            }
        }
        buffer.drain(..walk.taken);
        if walk.fault.is_some() || watch.terminated() {
            break;
        }
    }
    (events, copied, kept)
}
