//! What can go wrong on the administrator's connections, and who is to blame.
//!
//! Texts of a target are hostile: they end up in leases, logs and terminals, so they are cut and their control characters
//! go.

use super::admin::SCHEMA;
use crate::issuer::TargetError;
use rustls::AlertDescription;
use std::error::Error;
use tidegate_grants::TargetName;

/// Longest text of a target that we keep, in characters.
const LONGEST_TEXT: usize = 400;

/// A failed step, before anybody is blamed.
#[derive(Debug)]
pub(super) enum Fault {
    /// No connection, or no answer in time.
    Silent(String),
    /// Its certificate is not the one we were told to expect.
    Impostor(String),
    /// Somebody must do something first.
    Human(String),
    /// TLS or login was refused, or what answered is not what we installed.
    Refused(String),
    /// Our functions there are of this version, and not of the one that is called.
    Outdated(i32),
    /// The server answered with an error.
    Sql {
        /// SQLSTATE; `TG…` are raised by our own functions.
        code: String,
        /// Its message.
        message: String,
    },
}

/// What was being done: the same SQLSTATE means different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A role was to be created.
    Mint,
    /// A role was to be disabled, cleaned, removed or looked for.
    Teardown,
}

impl Fault {
    /// Of a connection or a statement.
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        if let Some(answer) = error.as_db_error() {
            let message = match answer.detail() {
                Some(detail) => format!("{}: {detail}", answer.message()),
                None => answer.message().to_owned(),
            };
            return Self::Sql { code: plain(answer.code().code()), message: plain(&message) };
        }
        match tls_cause(error) {
            Some(cause @ rustls::Error::InvalidCertificate(_)) => Self::Impostor(plain(&cause.to_string())),
            Some(rustls::Error::AlertReceived(alert)) => Self::Refused(no_to_our_certificate(*alert)),
            Some(cause) => Self::Refused(plain(&cause.to_string())),
            None => Self::of_no_answer(error),
        }
    }

    /// A connection that broke, or a log-in that the client library gave up: the server asked for what we do not have.
    fn of_no_answer(error: &tokio_postgres::Error) -> Self {
        let cause = error.source();
        let said = plain(&format!("{error}{}", cause.map(|cause| format!(": {cause}")).unwrap_or_default()));
        if cause.is_none_or(|cause| cause.is::<std::io::Error>()) {
            return Self::Silent(said);
        }
        Self::Refused(format!(
            "it asked for what our credential is not ({said}): see its pg_hba.conf, and `auth` of the target"
        ))
    }

    /// Whether the server certainly did not do what it was asked.
    pub(super) fn is_definite(&self) -> bool {
        // An error of class 08 or 57 may have come after the commit: the connection was ending.
        matches!(self, Self::Sql { code, .. } if !code.starts_with("08") && !code.starts_with("57P"))
    }

    /// Whether somebody else held a lock for too long.
    pub(super) fn is_locked(&self) -> bool {
        matches!(self, Self::Sql { code, .. } if code == "55P03")
    }

    /// Whether the database does not exist.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Sql { code, .. } if code == "3D000")
    }

    /// Whether another database of the same server may do: this one is gone, shut, or full by its own limit.
    pub(super) fn is_about_the_database(&self) -> bool {
        let full = matches!(self, Self::Sql { code, .. } if code == "53300");
        full || matches!(self, Self::Sql { .. }) && self.is_shut_out()
    }

    /// Whether the database does not exist, or does not let us in, or has not our functions.
    pub(super) fn is_shut_out(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Outdated(_) => true,
            Self::Sql { code, .. } => {
                code.starts_with("28") || ["3D000", "3F000", "42883", "42501", "55000"].contains(&code.as_str())
            }
            _ => false,
        }
    }

    /// Whether our function said "too late": the request, or the clock that we compare with, was old.
    pub(super) fn is_late(&self) -> bool {
        matches!(self, Self::Sql { code, .. } if code == "TG002")
    }

    /// In the terms of sessions and the reaper.
    pub(super) fn blame(self, target: &TargetName, step: Step) -> TargetError {
        let target = target.to_string();
        match self {
            Self::Silent(cause) => TargetError::Unreachable { target, cause },
            Self::Impostor(cause) => TargetError::Impostor { target, cause },
            Self::Refused(cause) => TargetError::Refused { target, cause },
            Self::Outdated(version) => TargetError::Refused {
                target,
                cause: format!(
                    "its functions are of version {version}, not {SCHEMA}: install the output of `tidegate target trust` again"
                ),
            },
            Self::Human(cause) => TargetError::Held { target, cause },
            Self::Sql { code, message } => {
                let cause = format!("{message} (SQLSTATE {code})");
                match code.as_str() {
                    "53300" if step == Step::Mint => TargetError::Answered { target, code, message },
                    // Out of lock memory does not pass by itself, though it is of a class that does.
                    "53200" if step == Step::Teardown => TargetError::Held { target, cause },
                    "TG002" | "55P03" | "25006" => TargetError::Unreachable { target, cause },
                    code if passes(code) => TargetError::Unreachable { target, cause },
                    "3D000" | "3F000" | "42883" | "TG004" => TargetError::Refused { target, cause },
                    code if code.starts_with("28") || step == Step::Mint => TargetError::Refused { target, cause },
                    _ => TargetError::Held { target, cause },
                }
            }
        }
    }
}

/// Classes of errors that pass: connection, rollback, resources, operator, system (PostgreSQL appendix A).
fn passes(code: &str) -> bool {
    ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
}

/// What a target's TLS means by an alert once it has seen our certificate (RFC 8446 section 6.2).
pub(super) fn no_to_our_certificate(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => {
            "it does not know our CA: the file of its ssl_ca_file does not hold it".to_owned()
        }
        AlertDescription::CertificateExpired => {
            "it takes our certificate of a minute for expired: its clock is ahead of ours".to_owned()
        }
        AlertDescription::BadCertificate => {
            "it does not take our certificate: its clock is behind ours, or its ssl_ca_file holds another CA of our name"
                .to_owned()
        }
        alert => format!("its TLS refused ours: {alert:?}"),
    }
}

/// A target's text, bounded and fit for a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The error of rustls inside, if there is one. (`io::Error` does not give its own content as its source.)
fn tls_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn blamed(code: &str, step: Step) -> TargetError {
        Fault::Sql { code: code.into(), message: "m".into() }.blame(&"orders".parse().unwrap(), step)
    }

    #[test]
    fn errors_that_pass_are_tried_again_and_the_rest_needs_somebody() {
        for code in ["TG002", "55P03", "57014", "57P01", "53300", "25006", "40001"] {
            assert!(matches!(blamed(code, Step::Teardown), TargetError::Unreachable { .. }), "{code}");
        }
        for code in ["TG001", "TG003", "2BP01", "42501", "53200", "XX000"] {
            assert!(matches!(blamed(code, Step::Teardown), TargetError::Held { .. }), "{code}");
        }
        for code in ["28000", "3D000", "42883"] {
            assert!(matches!(blamed(code, Step::Teardown), TargetError::Refused { .. }), "{code}");
        }
        assert!(matches!(blamed("53300", Step::Mint), TargetError::Answered { code, .. } if code == "53300"));
        for code in ["42710", "42501", "TG004"] {
            assert!(matches!(blamed(code, Step::Mint), TargetError::Refused { .. }), "{code}");
        }
    }

    #[test]
    fn an_error_of_an_ending_connection_leaves_it_open_whether_the_role_was_made() {
        let sql = |code: &str| Fault::Sql { code: code.into(), message: String::new() };
        assert!(sql("42710").is_definite() && sql("57014").is_definite());
        assert!(!sql("57P01").is_definite() && !sql("08006").is_definite());
        assert!(!Fault::Silent(String::new()).is_definite());
    }

    #[test]
    fn what_a_target_says_of_our_certificate_names_the_clock_or_the_ca() {
        assert!(no_to_our_certificate(AlertDescription::CertificateExpired).contains("clock is ahead"));
        assert!(no_to_our_certificate(AlertDescription::BadCertificate).contains("clock is behind"));
        assert!(no_to_our_certificate(AlertDescription::UnknownCA).contains("ssl_ca_file"));
    }

    #[test]
    fn a_targets_text_cannot_steer_a_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a [2Jb ");
        assert_eq!(plain(&"x".repeat(10_000)).len(), LONGEST_TEXT);
    }
}
