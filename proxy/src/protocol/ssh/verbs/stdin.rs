//! What a verb reads on stdin, whole.

use super::{Reply, Visitor};
use crate::protocol::ssh::{flow::Item, line::FromClient};
use std::time::Duration;
use tokio::time::timeout;

/// A signature must be here by then: somebody may have to look for the security key, and touch it.
const TO_SIGN: Duration = Duration::from_secs(120);
/// Longer ones are none.
const LONGEST_SIGNATURE: usize = 8 * 1024;

impl Visitor<'_> {
    /// All of stdin, up to one byte more than `most`. `None`: its end did not come in time.
    pub(super) async fn stdin(&self, most: usize, within: Duration) -> Option<Vec<u8>> {
        let reading = async {
            let mut read = Vec::new();
            while read.len() <= most {
                match self.line.up.pop().await {
                    Item::Data { bytes, .. } => {
                        let room = most + 1 - read.len();
                        read.extend(bytes.iter().take(room));
                        self.line.up.settle(bytes.len());
                    }
                    Item::Event(FromClient::Eof | FromClient::Close) | Item::Overrun => break,
                    Item::Event(_) => {}
                }
            }
            read
        };
        timeout(within, reading).await.ok()
    }

    /// What somebody has signed with `ssh-keygen -Y sign`; else what is to be said about there being none. `typed` is what reads it.
    pub(super) async fn signature(&self, typed: &str) -> Result<String, Reply> {
        if !self.own_stdin {
            return Err(Reply::usage(&format!("type this in your own shell: ssh gate {typed} < SIGNATURE")));
        }
        let signature = self.stdin(LONGEST_SIGNATURE, TO_SIGN).await;
        let signature = signature.ok_or_else(|| Reply::usage("no signature came on stdin"))?;
        Ok(String::from_utf8_lossy(&signature).into_owned())
    }
}
