//! `cert`: a certificate of minutes for `psql`, on a key that the person made and keeps.

use super::{Arguments, Reply, Verb, Visitor};
use crate::refusal::Refusal;
use jiff::SignedDuration;
use std::time::Duration;
use tidegate_ca::people::{LONGEST_REQUEST, RequestError};
use tidegate_grants::Event;

pub(super) const CERT: Verb = Verb {
    name: "cert",
    usage: "< REQUEST.csr",
    about: "a short-lived certificate for psql, instead of a password",
    more: "It reads a PKCS#10 request in PEM on stdin and prints the certificate. One way to make both:\n\n\
           openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=me -keyout me.key -out me.csr\n\
           ssh {gate} cert < me.csr > me.crt\n\
           psql \"... sslcert=me.crt sslkey=me.key\"\n\n\
           Whatever the request says, the certificate names you. It is good at the gateway alone, from any address, since it\n\
           is worth nothing without your key; and it opens nothing without a grant.",
    words: 0..=0,
    flags: &[],
    options: &[],
};

/// The request must be here by then.
const TO_ASK: Duration = Duration::from_secs(60);

pub(super) async fn cert(visitor: &Visitor<'_>, _: &Arguments<'_>) -> Reply {
    const TYPE: &str = "type this in your own shell: ssh gate cert < REQUEST.csr";
    if !visitor.own_stdin {
        return Reply::usage(TYPE);
    }
    let (ssh, identity) = (visitor.ssh, visitor.identity);
    let Some((host, port)) = &ssh.postgres else {
        return Reply::fault(
            1,
            "this gateway does not listen for PostgreSQL, and a certificate is good for nothing else",
        );
    };
    let Some(request) = visitor.stdin(LONGEST_REQUEST, TO_ASK).await else {
        return Reply::usage(&format!("no request came on stdin; {TYPE}"));
    };
    let (now, window) = (ssh.gate.now(), SignedDuration::try_from(ssh.passwords.window()).unwrap_or_default());
    let until = now.saturating_add(window).unwrap_or(now);
    let made = match ssh.keys.people.certify(&request, identity.name.as_str(), now, until) {
        Ok(made) => made,
        Err(RequestError::Ours(error)) => {
            tracing::error!(%error, "no certificate for a person");
            return Reply::refused(&Refusal::new("the gateway could not sign").next("tell your admin"));
        }
        Err(error) => {
            return Reply::refused(&Refusal::new(error.to_string()).next("`help cert` shows how to make one"));
        }
    };
    let detail = serde_json::json!({ "serial": made.serial, "until": until, "source": visitor.source });
    let event = Event::new("certificate.issued").identity(&identity.name).detail(detail);
    if let Err(error) = ssh.gate.store.append(event, now).await {
        return Reply::refused(&Refusal::from(&error));
    }
    let err = format!(
        "good until {until}\n\
         psql \"host={host} port={port} dbname=TARGET/DATABASE user={} sslmode=verify-full sslcert=FILE sslkey=KEY\"\n",
        identity.name
    );
    Reply { out: made.pem, err, ..Reply::default() }
}
