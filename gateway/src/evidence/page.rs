//! The pages for people: `README`, and `summary.html`, which needs nothing beside itself and runs no script.

use super::{Evidence, claims::Claim};
use crate::text::plain;
use std::fmt::Write as _;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;\
background:#fff}table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #d0d7de;padding:.35rem .5rem;\
text-align:left;vertical-align:top;overflow-wrap:anywhere}.signed{color:#116329;font-weight:600}.attested{color:#7d4e00;\
font-weight:600}.absent{color:#a40e26;font-weight:600}code{font:14px ui-monospace,monospace}\
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}td,th{border-color:#30363d}.signed{color:#56d364}\
.attested{color:#e3b341}.absent{color:#ff7b72}}";

/// In plain text.
pub(super) fn readme(evidence: &Evidence, claims: &[Claim]) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "Evidence of session {} of the gateway {}, put together at {}.\n\n\
         Prove it, offline, with the gateway's public key and nothing else of it:\n\n    \
         tidegate verify THIS.tge --key ledger.pub\n\n\
         Take ledger.pub from somebody that you trust, not from whoever gave you this file.\n\n\
         summary.html    the same for a browser\n\
         evidence.json   the same for programs: entries of the ledger with their proofs, rows, receipts\n\
         recording.tgr   the recording, sealed for the auditors' keys{}\n\
         list.json       digests of these, and a signature over them\n\n{}\n",
        evidence.session,
        evidence.gateway,
        evidence.made,
        if evidence.redacted { ": LEFT OUT" } else { "" },
        Evidence::legend(),
    );
    for Claim { word, what } in claims {
        let _ = writeln!(out, "{:9} {}", word.text(), plain(what));
    }
    out
}

/// For a browser.
pub(super) fn summary(evidence: &Evidence, claims: &[Claim]) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Session {0}</title><style>{STYLE}</style></head><body>\n\
         <h1>Session <code>{0}</code></h1>\n<p>Gateway {1}, put together at {2}. This page proves nothing by itself: \
         <code>tidegate verify</code> proves the file that it came in.</p>\n<pre>{3}</pre>\n<h2>What is shown, and on whose word</h2>\n<table>\n",
        escaped(&evidence.session),
        escaped(&evidence.gateway),
        evidence.made,
        escaped(Evidence::legend()),
    );
    for Claim { word, what } in claims {
        let (class, word) = (word.text().to_lowercase(), word.text());
        let _ = writeln!(out, "<tr><td class=\"{class}\">{word}</td><td>{}</td></tr>", escaped(what));
    }
    out.push_str("</table>\n<h2>What the ledger has</h2>\n<table>\n<tr><th>Entry</th><th>When</th><th>What</th><th>Who</th><th>Detail</th></tr>\n");
    for included in &evidence.entries {
        let entry = &included.exported.entry;
        let detail = if entry.event.detail.is_null() { String::new() } else { entry.event.detail.to_string() };
        let _ = writeln!(
            out,
            "<tr><td>{}/{}</td><td>{}</td><td>{}</td><td>{}</td><td><code>{}</code></td></tr>",
            escaped(&entry.node),
            entry.seq,
            entry.at,
            escaped(&entry.event.kind),
            escaped(entry.event.identity.as_deref().unwrap_or_default()),
            escaped(&detail),
        );
    }
    out.push_str("</table>\n</body></html>\n");
    out
}

/// Nothing that anybody typed is markup, or steers what it is shown in.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push('\n'),
            c => out.push_str(&plain(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out
}
