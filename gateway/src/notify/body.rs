//! What people are told of an entry: one sentence, and for programs the entry itself.
//!
//! What always holds: what people and targets wrote comes out as text. It can neither call anybody (`@channel`), nor link anywhere.

use crate::text::plain;
use serde_json::{Value, json};
use std::str::FromStr;
use tidegate_grants::{Event, RequestId, ledger::Entry};

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

/// An entry, to be told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Letter<'a> {
    /// Whose ledger it is of.
    pub(super) gateway: &'a str,
    pub(super) entry: &'a Entry,
    /// Where browsers reach the gateway, if they do.
    pub(super) url: Option<&'a str>,
}

impl Letter<'_> {
    /// The same entry has the same id, however often it is told.
    pub(super) fn id(&self) -> String {
        format!("{}/{}/{}", self.gateway, self.entry.node, self.entry.seq)
    }

    /// Where somebody may answer, who must log in there: the link by itself opens nothing. Made of the configuration and an id, and of
    /// nothing that anybody wrote.
    pub(super) fn link(&self) -> Option<String> {
        let event = &self.entry.event;
        let awaits = matches!(event.kind.as_str(), "request.opened" | "request.approved");
        let id: RequestId = event.detail.get("request").filter(|_| awaits)?.as_str()?.parse().ok()?;
        Some(format!("{}/approve/{id}", self.url?))
    }

    /// One line: what happened, to whom, where, and why.
    pub(super) fn sentence(&self) -> String {
        sentence(self.gateway, self.entry)
    }
}

/// Somebody should look now, whatever they are doing.
pub(super) fn is_urgent(event: &Event) -> bool {
    event.kind == "review.demanded"
}

fn sentence(gateway: &str, entry: &Entry) -> String {
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
pub(super) fn body(format: Format, letter: &Letter<'_>) -> Value {
    let (text, link) = (letter.sentence(), letter.link());
    match format {
        Format::Json => {
            let mut body = json!({
                "version": 1,
                "id": letter.id(),
                "gateway": letter.gateway,
                "priority": if is_urgent(&letter.entry.event) { "high" } else { "normal" },
                "text": text,
                "entry": letter.entry,
            });
            if let (Some(body), Some(link)) = (body.as_object_mut(), link) {
                body.insert("link".to_owned(), json!(link));
            }
            body
        }
        // Its own three characters; without them there is neither a mention nor a link but ours.
        Format::Slack => {
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let link = link.map(|link| format!(" <{link}|Answer>")).unwrap_or_default();
            json!({ "text": format!("{text}{link}") })
        }
        Format::Teams => card(&text, link.as_deref()),
        // In code there is neither a mention nor a link; ours is behind it.
        Format::Mattermost => {
            let link = link.map(|link| format!(" [Answer]({link})")).unwrap_or_default();
            json!({ "text": format!("`{}`{link}", text.replace('`', "'")) })
        }
    }
}

/// Runs of text are not Markdown.
fn card(text: &str, link: Option<&str>) -> Value {
    let actions: Vec<Value> =
        link.iter().map(|link| json!({ "type": "Action.OpenUrl", "title": "Answer", "url": link })).collect();
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": [{ "type": "RichTextBlock", "inlines": [{ "type": "TextRun", "text": text }] }],
                "actions": actions,
            },
        }],
    })
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
        let letter = Letter { gateway: "gate", entry: &entry, url: Some("https://gate.example.com") };
        let said = letter.sentence();
        assert!(
            said.starts_with("gate: lock.added by carol: <!channel>") && !said.contains(['\n', '\u{1b}']),
            "{said}"
        );
        let text = |format| body(format, &letter)["text"].as_str().unwrap().to_owned();
        assert!(!text(Format::Slack).contains(['<', '>']) && text(Format::Slack).contains("&lt;!channel&gt;"));
        let mattermost = text(Format::Mattermost);
        assert_eq!((mattermost.matches('`').count(), mattermost.starts_with('`')), (2, true), "{mattermost}");
        let card = body(Format::Teams, &letter);
        assert_eq!(card["attachments"][0]["content"]["body"][0]["inlines"][0]["text"], said.as_str());
        let whole = body(Format::Json, &letter);
        assert_eq!((&whole["id"], &whole["entry"]["kind"]), (&json!("gate/a/7"), &json!("lock.added")));
        assert_eq!(whole["priority"], "normal");
        let broken = Entry { event: Event::new("review.demanded"), ..entry.clone() };
        let whole = body(Format::Json, &Letter { entry: &broken, ..letter });
        assert_eq!(whole["priority"], "high");
        assert!(whole["text"].as_str().unwrap().starts_with("URGENT: "), "{whole}");
    }

    #[test]
    fn what_awaits_an_answer_links_to_the_page_for_it_and_nothing_else_does() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let event = |kind| Event::new(kind).detail(json!({ "request": id, "reason": "https://evil.example" }));
        let entry = |event| Entry {
            node: "a".to_owned(),
            seq: 7,
            at: jiff::Timestamp::UNIX_EPOCH,
            config: String::new(),
            event,
            row: None,
            prev: String::new(),
            hash: String::new(),
        };
        let opened = entry(event("request.opened"));
        let letter = Letter { gateway: "gate", entry: &opened, url: Some("https://gate.example.com") };
        let link = format!("https://gate.example.com/approve/{id}");
        let text = |format| body(format, &letter)["text"].as_str().unwrap().to_owned();
        assert_eq!(letter.link().as_deref(), Some(link.as_str()));
        assert!(text(Format::Slack).ends_with(&format!(" <{link}|Answer>")));
        assert!(text(Format::Mattermost).ends_with(&format!("` [Answer]({link})")));
        assert_eq!(body(Format::Json, &letter)["link"], link.as_str());
        let card = body(Format::Teams, &letter);
        assert_eq!(card["attachments"][0]["content"]["actions"][0]["url"], link.as_str());
        assert_eq!(Letter { url: None, ..letter }.link(), None);
        for other in [event("request.denied"), Event::new("request.opened").detail(json!({ "request": "../x" }))] {
            assert_eq!(Letter { entry: &entry(other), ..letter }.link(), None);
        }
    }
}
