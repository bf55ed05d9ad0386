//! The user name that a client gives is where it wants to go: `deploy@web-1`, `deploy~shell@web-1`, or a plain name for
//! the control shell. Who somebody is comes from their key alone.
//!
//! One strict grammar: whatever does not fit it is refused before it is used, and the fault never repeats the name.

use tidegate_grants::{EntitlementName, InvalidName, Login, TargetName};

/// Longest name that is looked at: login, `~`, entitlement, `@`, target, each at its own limit.
const LONGEST: usize = 32 + 1 + 63 + 1 + 63;

/// What a name at the door means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DoorName {
    /// No target in the name: the control shell.
    Shell,
    /// A login on a target.
    Target {
        /// As whom.
        login: Login,
        /// Of which entitlement, where several grants fit.
        entitlement: Option<EntitlementName>,
        /// Where.
        target: TargetName,
    },
}

/// Why a name means nothing here. The texts are for the person and contain nothing of the name itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// It cannot be a name of ours.
    #[error("the user name is longer than any name here")]
    TooLong,
    /// More than one `@` before the gateway's.
    #[error("the user name has more than one @ in it")]
    ManyTargets,
    /// One of its parts breaks its grammar.
    #[error("the user name holds what is {0}")]
    Part(InvalidName),
}

/// Reads the user name of an SSH client.
pub(super) fn parse(user: &str) -> Result<DoorName, Malformed> {
    if user.len() > LONGEST {
        return Err(Malformed::TooLong);
    }
    let Some((who, target)) = user.split_once('@') else {
        // The name that `ssh gate` sends is the local account's: any login will do, and it means nothing.
        user.parse::<Login>().map_err(Malformed::Part)?;
        return Ok(DoorName::Shell);
    };
    if target.contains('@') {
        return Err(Malformed::ManyTargets);
    }
    let (login, entitlement) = match who.split_once('~') {
        Some((login, entitlement)) => (login, Some(entitlement.parse().map_err(Malformed::Part)?)),
        None => (who, None),
    };
    Ok(DoorName::Target {
        login: login.parse().map_err(Malformed::Part)?,
        entitlement,
        target: target.parse().map_err(Malformed::Part)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn shown(name: &DoorName) -> String {
        match name {
            DoorName::Shell => String::new(),
            DoorName::Target { login, entitlement: None, target } => format!("{login}@{target}"),
            DoorName::Target { login, entitlement: Some(entitlement), target } => {
                format!("{login}~{entitlement}@{target}")
            }
        }
    }

    #[test]
    fn a_login_and_a_target_are_told_apart() {
        for text in ["deploy@web-1", "deploy~shell@web-1", "_a.b-c@0.example.com", "A~x_y@1"] {
            assert_eq!(shown(&parse(text).unwrap()), text);
        }
    }

    #[test]
    fn a_plain_name_means_the_control_shell() {
        assert_eq!(parse("alice").unwrap(), DoorName::Shell);
        assert_eq!(parse("root").unwrap(), DoorName::Shell);
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        for text in [
            "",
            "@",
            "a@",
            "@web-1",
            "~",
            "a~@web-1",
            "a~b~c@web-1",
            "a@b@c",
            "a b@web-1",
            "a@web-1\n",
            "a@web\0-1",
            "a,b@web-1",
            "a@WEB-1",
            "a@web_1",
            "al~ice",
            "1a@web-1",
            "a@-web",
            "-oProxyCommand=x@web-1",
            "a\u{e9}@web-1",
        ] {
            assert!(parse(text).is_err(), "{text:?} was taken");
        }
        assert_eq!(parse(&"a".repeat(161)), Err(Malformed::TooLong));
        assert!(parse(&format!("{}@web-1", "a".repeat(33))).is_err());
    }

    #[test]
    fn a_fault_does_not_repeat_the_name() {
        let fault = parse("\u{1b}]52;c;evil@web-1").unwrap_err().to_string();
        assert!(!fault.contains("evil") && !fault.chars().any(char::is_control), "{fault:?}");
    }

    proptest! {
        #[test]
        fn anything_taken_is_printed_back_as_it_came(text in "\\PC{0,170}|[a-z0-9@~.\\-]{0,40}") {
            if let Ok(name @ DoorName::Target { .. }) = parse(&text) {
                prop_assert_eq!(shown(&name), text);
            }
        }

        #[test]
        fn every_well_formed_name_is_taken(
            text in "[A-Za-z_][A-Za-z0-9._\\-]{0,31}(~[a-z0-9][a-z0-9._\\-]{0,62})?@[a-z0-9][a-z0-9.\\-]{0,62}"
        ) {
            prop_assert_eq!(shown(&parse(&text).unwrap()), text);
        }
    }
}
