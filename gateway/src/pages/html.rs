//! HTML of the pages: text is text, and never markup.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest as _, Sha256};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem}\
dt{font-weight:bold}dd{margin:0 0 .5rem}input,button{font:inherit;padding:.3rem .6rem}";

/// As a Content-Security-Policy names it.
pub(super) fn style_hash() -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(STYLE)))
}

/// A whole page. `body` is markup.
pub(super) fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{}</title><style>{STYLE}</style></head><body>{body}</body></html>",
        text(title)
    )
}

/// What somebody wrote, as text: control characters and all that could be markup are escaped.
pub(super) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in crate::text::plain(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_wrote_is_text() {
        let evil = "<script>alert('x')</script> & \"y\"\n";
        let shown = text(evil);
        assert!(!shown.contains(['<', '>', '"', '\'', '\n']), "{shown}");
        assert!(shown.starts_with("&lt;script&gt;"), "{shown}");
    }
}
