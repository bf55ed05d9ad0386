//! What somebody has signed with `ssh-keygen -Y sign`, on stdin.

use super::{Reply, Visitor};
use crate::protocol::ssh::{flow::Item, line::FromClient};
use std::time::Duration;
use tokio::time::timeout;

/// The signature must be here by then.
const TO_SIGN: Duration = Duration::from_secs(120);
/// Longer ones are none.
const LONGEST: usize = 8 * 1024;

/// The signature, as it was sent; else what is to be said about there being none. `typed` is what reads it.
pub(super) async fn signature(visitor: &Visitor<'_>, typed: &str) -> Result<String, Reply> {
    if !visitor.own_stdin {
        return Err(Reply::usage(&format!("type this in your own shell: ssh gate {typed} < SIGNATURE")));
    }
    timeout(TO_SIGN, stdin(visitor)).await.map_err(|_| Reply::usage("no signature came on stdin"))
}

/// All of stdin, as far as a signature can go.
async fn stdin(visitor: &Visitor<'_>) -> String {
    let mut text = Vec::new();
    while text.len() <= LONGEST {
        match visitor.line.up.pop().await {
            Item::Data { bytes, .. } => {
                let room = LONGEST + 1 - text.len();
                text.extend(bytes.iter().take(room));
                visitor.line.up.settle(bytes.len());
            }
            Item::Event(FromClient::Eof | FromClient::Close) | Item::Overrun => break,
            Item::Event(_) => {}
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}
