//! Mail, over SMTP.

use super::{
    NotTaken,
    body::{Letter, is_urgent},
};
use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{
        Mailbox,
        header::{ContentType, Header, HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};
use secrecy::{ExposeSecret as _, SecretSlice};
use std::{error::Error, path::PathBuf, sync::Arc, time::Duration};

/// Of each step of the conversation.
const STEP: Duration = Duration::from_secs(15);
/// Of all of it.
const DEADLINE: Duration = Duration::from_secs(60);

/// `[smtp]`
#[derive(Debug)]
pub(crate) struct Smtp {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Who writes.
    pub(crate) from: Mailbox,
    pub(crate) tls: SmtpTls,
    /// Who signs the server's certificate, instead of the system's authorities.
    pub(crate) tls_ca: Option<PathBuf>,
    /// Name and password.
    pub(crate) login: Option<(String, Arc<SecretSlice<u8>>)>,
}

/// How the conversation is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SmtpTls {
    /// After a greeting in clear (RFC 3207); never without.
    StartTls,
    /// From the first byte (RFC 8314).
    Implicit,
    /// Not at all: to this host itself.
    None,
}

/// Who gets mail.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) smtp: Arc<Smtp>,
    pub(crate) to: Vec<Mailbox>,
}

impl Mail {
    /// Sends one entry to each of them, as one mail each: an address that the server knows no more keeps it from nobody else.
    pub(super) async fn send(&self, letter: &Letter<'_>, channel: &str) -> Result<(), NotTaken> {
        let transport = self.smtp.transport().map_err(NotTaken::Later)?;
        // A server that does not let us in is one that will: nothing is given up for that.
        match tokio::time::timeout(DEADLINE, transport.test_connection()).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Err(NotTaken::Later("the mail server did not greet us".to_owned())),
            Ok(Err(error)) => return Err(NotTaken::Later(error.to_string())),
            Err(_) => return Err(NotTaken::Later("the mail server did not answer in time".to_owned())),
        }
        let mut refused = Vec::new();
        for to in &self.to {
            let message = self.message(letter, channel, to).map_err(NotTaken::Never)?;
            match tokio::time::timeout(DEADLINE, transport.send(message)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) if error.is_permanent() => refused.push(format!("{}: {error}", to.email)),
                Ok(Err(error)) => return Err(NotTaken::Later(error.to_string())),
                Err(_) => return Err(NotTaken::Later("the mail server did not answer in time".to_owned())),
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(NotTaken::Never(refused.join("; "))) }
    }

    fn message(&self, letter: &Letter<'_>, channel: &str, to: &Mailbox) -> Result<Message, String> {
        let text = letter.sentence();
        let answer =
            letter.link().map(|link| format!("Answer, once you have logged in there: {link}\n\n")).unwrap_or_default();
        let details = serde_json::to_string_pretty(letter.entry).map_err(|error| error.to_string())?;
        // The same mail has the same id, however often it is sent.
        let message_id = format!("<{}.{channel}@tidegate>", letter.id().replace('/', "."));
        let mut message = Message::builder().from(self.smtp.from.clone()).message_id(Some(message_id)).subject(&text);
        if is_urgent(&letter.entry.event) {
            message = message.header(Importance);
        }
        let message =
            message.to(to.clone()).header(ContentType::TEXT_PLAIN).body(format!("{text}\n\n{answer}{details}\n"));
        message.map_err(|error| error.to_string())
    }
}

/// `Importance: high` (RFC 2156 section 5.3.6), which phones ring for.
#[derive(Debug, Clone)]
struct Importance;

impl Header for Importance {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Importance")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "high".to_owned())
    }
}

impl Smtp {
    fn transport(&self) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
        let mut parameters = TlsParameters::builder(self.host.clone());
        if let Some(file) = &self.tls_ca {
            let pem = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
            let certificate = Certificate::from_pem(&pem).map_err(|error| error.to_string())?;
            parameters = parameters.add_root_certificate(certificate);
        }
        let parameters = || parameters.build_rustls().map_err(|error| error.to_string());
        let tls = match self.tls {
            SmtpTls::StartTls => Tls::Required(parameters()?),
            SmtpTls::Implicit => Tls::Wrapper(parameters()?),
            SmtpTls::None => Tls::None,
        };
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&self.host)
            .port(self.port)
            .timeout(Some(STEP))
            .tls(tls);
        if let Some((user, password)) = &self.login {
            let password =
                String::from_utf8(password.expose_secret().to_vec()).map_err(|_| "the password is no text")?;
            transport = transport.credentials(Credentials::new(user.clone(), password));
        }
        Ok(transport.build())
    }
}
