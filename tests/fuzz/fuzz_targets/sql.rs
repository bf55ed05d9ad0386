//! Any bytes from a client and its target, in pieces of any size: they are framed and understood without a panic, alike however they
//! come, and of what is masked nothing is written down.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_proxy::fuzzing::understood;

fuzz_target!(|data: &[u8]| {
    let [split, size, rest @ ..] = data else { return };
    let at = rest.len() * usize::from(*split) / 256;
    let (client, target) = rest.split_at(at);
    let whole = understood(client, target, usize::MAX);
    let pieces = understood(client, target, usize::from(*size).max(1));
    assert_eq!(whole, pieces);
});
