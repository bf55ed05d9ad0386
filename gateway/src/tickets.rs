//! Asks the ticket system whether there is such a ticket, before a request names it (`ticket.check_url`).
//!
//! What always holds: no answer is a no; what somebody typed goes into the address percent-encoded, where the configuration says, and
//! changes nothing else of it.

use crate::outgoing::{address, send};
use http_body_util::Full;
use hyper::{Request, Uri, body::Bytes, header};
use std::pin::Pin;
use tidegate_proxy::gate::Tickets;

/// What stands for the ticket in the address.
pub(crate) const PLACE: &str = "{ticket}";

/// Asks over HTTP.
#[derive(Debug)]
pub(crate) struct TicketSystem;

impl Tickets for TicketSystem {
    fn check<'a>(
        &'a self,
        url: &'a str,
        ticket: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        Box::pin(async move {
            let down = |cause: String| {
                tracing::error!(url, cause, "the ticket system cannot be asked");
                "the ticket system does not answer, so nothing is asked for; try again, or tell your admin".to_owned()
            };
            let uri = uri(url, ticket).map_err(down)?;
            let host = uri.authority().map_or("", |authority| authority.as_str());
            let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
                .header(header::HOST, host)
                .header(header::USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
                .body(Full::<Bytes>::default())
                .map_err(|error| down(error.to_string()))?;
            let status = send(&uri, None, request).await.map_err(down)?;
            match status.as_u16() {
                200..=299 => Ok(()),
                404 | 410 => Err("the ticket system knows no such ticket".to_owned()),
                _ => Err(down(format!("it answered {status}"))),
            }
        })
    }
}

/// The address for this ticket. The configuration's is one with anything in its place.
pub(crate) fn uri(url: &str, ticket: &str) -> Result<Uri, String> {
    if url.matches(PLACE).count() != 1 {
        return Err(format!("has not exactly one {PLACE}"));
    }
    let uri = address(&url.replace(PLACE, &encoded(ticket)))?;
    let whole = uri.path_and_query().map_or("", |path| path.as_str());
    // In the host's name it would choose who answers.
    if whole.contains(&encoded(ticket)) { Ok(uri) } else { Err(format!("has {PLACE} outside its path and query")) }
}

/// RFC 3986 section 2.1: all but what is unreserved.
fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_typed_changes_nothing_else_of_the_address() {
        let url = "https://tickets.example.com/api/{ticket}/open?x=1";
        for (ticket, path) in [
            ("INC-1", "/api/INC-1/open?x=1"),
            ("../admin?y=2#", "/api/..%2Fadmin%3Fy%3D2%23/open?x=1"),
            ("a b\u{e9}", "/api/a%20b%C3%A9/open?x=1"),
        ] {
            let uri = uri(url, ticket).unwrap();
            assert_eq!((uri.host(), uri.path_and_query().unwrap().as_str()), (Some("tickets.example.com"), path));
        }
        for wrong in [
            "https://tickets.example.com/",
            "https://{ticket}.example.com/",
            "https://x/{ticket}/{ticket}",
            "http://tickets.example.com/{ticket}",
            "ftp://127.0.0.1/{ticket}",
        ] {
            assert!(uri(wrong, "INC-1").is_err(), "{wrong}");
        }
        uri("http://127.0.0.1:8080/?id={ticket}", "INC-1").unwrap();
    }
}
