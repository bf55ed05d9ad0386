//! What people are told of an entry: one sentence, and for programs the entry itself.
//!
//! What always holds: what people and targets wrote comes out as text. It can neither call anybody (`@channel`), nor link anywhere.

use crate::text::plain;
use serde_json::{Value, json};
use std::str::FromStr;
use tidegate_grants::{Event, ledger::Entry};

/// What a webhook's receiver understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The entry.
    Json,
    /// An incoming webhook of Slack.
    Slack,
    /// A workflow of Microsoft Teams: an Adaptive Card.
    Teams,
    /// An incoming webhook of Mattermost.
    Mattermost,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "json" => Ok(Self::Json),
            "slack" => Ok(Self::Slack),
            "teams" => Ok(Self::Teams),
            "mattermost" => Ok(Self::Mattermost),
            _ => Err("is no format"),
        }
    }
}

/// The same entry has the same id, however often it is told.
pub(super) fn id(gateway: &str, entry: &Entry) -> String {
    format!("{gateway}/{}/{}", entry.node, entry.seq)
}

/// Somebody should look now, whatever they are doing.
pub(super) fn is_urgent(event: &Event) -> bool {
    event.kind == "review.demanded"
}

/// One line: what happened, to whom, where, and why.
pub(super) fn sentence(gateway: &str, entry: &Entry) -> String {
    let event = &entry.event;
    let urgent = if is_urgent(event) { "URGENT: the glass was broken: " } else { "" };
    let mut text = format!("{urgent}{gateway}: {}", event.kind);
    if let Some(who) = event.identity.as_deref().or_else(|| event.detail.get("name")?.as_str()) {
        text.push_str(&format!(" {who}"));
    }
    if let Some(target) = &event.target {
        text.push_str(&format!(" on {target}"));
    }
    if let Some(by) = event.detail.get("by").and_then(Value::as_str) {
        text.push_str(&format!(" by {by}"));
    }
    if let Some(why) = ["why", "reason", "error"].iter().find_map(|key| event.detail.get(key)?.as_str()) {
        text.push_str(&format!(": {why}"));
    }
    if let Some(reference) = event.detail.get("ref").and_then(Value::as_str) {
        text.push_str(&format!(" (tidegate why {reference})"));
    }
    plain(&text).into_owned()
}

/// What is posted.
pub(super) fn body(format: Format, gateway: &str, entry: &Entry) -> Value {
    let text = sentence(gateway, entry);
    match format {
        Format::Json => json!({
            "version": 1,
            "id": id(gateway, entry),
            "gateway": gateway,
            "priority": if is_urgent(&entry.event) { "high" } else { "normal" },
            "text": text,
            "entry": entry,
        }),
        // Its own three characters; without them there is neither a mention nor a link.
        Format::Slack => {
            json!({ "text": text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;") })
        }
        // Runs of text are not Markdown.
        Format::Teams => json!({
            "type": "message",
            "attachments": [{
                "contentType": "application/vnd.microsoft.card.adaptive",
                "content": {
                    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                    "type": "AdaptiveCard",
                    "version": "1.4",
                    "body": [{ "type": "RichTextBlock", "inlines": [{ "type": "TextRun", "text": text }] }],
                },
            }],
        }),
        // In code there is neither a mention nor a link.
        Format::Mattermost => json!({ "text": format!("`{}`", text.replace('`', "'")) }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_wrote_calls_nobody_and_links_nowhere() {
        let evil = "<!channel> @all `x` [y](https://evil.example)\n\u{1b}[2J & more";
        let event = Event::new("lock.added").detail(json!({ "by": "carol", "reason": evil }));
        let entry = Entry {
            node: "a".to_owned(),
            seq: 7,
            at: jiff::Timestamp::UNIX_EPOCH,
            config: String::new(),
            event,
            row: None,
            prev: String::new(),
            hash: String::new(),
        };
        let said = sentence("gate", &entry);
        assert!(
            said.starts_with("gate: lock.added by carol: <!channel>") && !said.contains(['\n', '\u{1b}']),
            "{said}"
        );
        let text = |format| body(format, "gate", &entry)["text"].as_str().unwrap().to_owned();
        assert!(!text(Format::Slack).contains(['<', '>']) && text(Format::Slack).contains("&lt;!channel&gt;"));
        let mattermost = text(Format::Mattermost);
        assert_eq!((mattermost.matches('`').count(), mattermost.starts_with('`')), (2, true), "{mattermost}");
        let card = body(Format::Teams, "gate", &entry);
        assert_eq!(card["attachments"][0]["content"]["body"][0]["inlines"][0]["text"], said.as_str());
        let whole = body(Format::Json, "gate", &entry);
        assert_eq!((&whole["id"], &whole["entry"]["kind"]), (&json!("gate/a/7"), &json!("lock.added")));
        assert_eq!(whole["priority"], "normal");
        let broken = Entry { event: Event::new("review.demanded"), ..entry };
        let whole = body(Format::Json, "gate", &broken);
        assert_eq!(whole["priority"], "high");
        assert!(whole["text"].as_str().unwrap().starts_with("URGENT: "), "{whole}");
    }
}
