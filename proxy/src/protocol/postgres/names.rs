//! What the person typed as user and database, and what it means (see the table "Names at the door" in the README).

use tidegate_grants::{DatabaseName, EntitlementName, IdentityName, InvalidName, TargetName};

/// Who wants which database on which target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    /// Before `~` and `@`.
    pub(super) identity: IdentityName,
    /// Behind `@` in the user, or before `/` in the database.
    pub(super) target: TargetName,
    /// The rest of the database.
    pub(super) database: DatabaseName,
    /// Behind `~`.
    pub(super) entitlement: Option<EntitlementName>,
}

/// Why names are refused, for the person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    /// Outside its grammar.
    #[error(transparent)]
    Invalid(#[from] InvalidName),
    /// Neither the user nor the database names a target.
    #[error("no target is named")]
    NoTarget,
    /// No database at all.
    #[error("no database is named")]
    NoDatabase,
}

impl NameError {
    /// What to do next.
    pub(super) fn next(&self) -> &'static str {
        match self {
            Self::Invalid(_) | Self::NoTarget => {
                "write user=YOU dbname=TARGET/DATABASE, or user=YOU@TARGET dbname=DATABASE"
            }
            Self::NoDatabase => "write dbname=TARGET/DATABASE",
        }
    }
}

/// `alice` with `orders/shop`, or `alice@orders` with `shop`; `~entitlement` behind the identity.
pub(super) fn parse(user: &str, database: Option<&str>) -> Result<Names, NameError> {
    let (who, in_user) = match user.split_once('@') {
        Some((who, target)) => (who, Some(target)),
        None => (user, None),
    };
    let (identity, entitlement) = match who.split_once('~') {
        Some((identity, entitlement)) => (identity, Some(entitlement.parse()?)),
        None => (who, None),
    };
    let identity = identity.parse()?;
    let database = database.ok_or(NameError::NoDatabase)?;
    let (target, database) = match in_user {
        Some(target) => (target, database),
        None => database.split_once('/').ok_or(NameError::NoTarget)?,
    };
    Ok(Names { identity, target: target.parse()?, database: database.parse()?, entitlement })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(user: &str, database: &str) -> Option<(String, String, String, Option<String>)> {
        let names = parse(user, Some(database)).ok()?;
        let entitlement = names.entitlement.map(|e| e.to_string());
        Some((names.identity.to_string(), names.target.to_string(), names.database.to_string(), entitlement))
    }

    fn meant(
        identity: &str,
        target: &str,
        database: &str,
        entitlement: Option<&str>,
    ) -> Option<(String, String, String, Option<String>)> {
        Some((identity.to_owned(), target.to_owned(), database.to_owned(), entitlement.map(str::to_owned)))
    }

    #[test]
    fn the_forms_of_the_contract_mean_what_it_says() {
        assert_eq!(read("alice", "orders/shop"), meant("alice", "orders", "shop", None));
        assert_eq!(read("alice~readonly", "orders/shop"), meant("alice", "orders", "shop", Some("readonly")));
        assert_eq!(read("alice@orders", "shop"), meant("alice", "orders", "shop", None));
        assert_eq!(read("alice~readonly@orders", "shop"), meant("alice", "orders", "shop", Some("readonly")));
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(parse("alice", Some("shop")), Err(NameError::NoTarget));
        assert_eq!(parse("alice", None), Err(NameError::NoDatabase));
        for (user, database) in [
            ("", "orders/shop"),
            ("Alice", "orders/shop"),
            ("alice ", "orders/shop"),
            ("alice\n", "orders/shop"),
            ("alice~", "orders/shop"),
            ("alice~a~b", "orders/shop"),
            ("alice@", "shop"),
            ("alice@orders", "orders/shop"),
            ("alice@orders@web", "shop"),
            ("alice@orders~readonly", "shop"),
            ("alice", "orders/"),
            ("alice", "/shop"),
            ("alice", "orders/shop/x"),
            ("alice", "orders/sh\nop"),
            ("alice", "orders/shop host=evil'"),
        ] {
            assert!(parse(user, Some(database)).is_err(), "{user:?} {database:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_exactly_what_was_typed(user in "[a-z~@/.]{0,12}", database in "[a-z~@/.]{0,12}") {
            if let Ok(n) = parse(&user, Some(&database)) {
                let who = n.entitlement.as_ref().map_or(n.identity.to_string(), |e| format!("{}~{e}", n.identity));
                let in_user = (format!("{who}@{}", n.target), n.database.to_string());
                let in_database = (who, format!("{}/{}", n.target, n.database));
                let typed = (user, database);
                prop_assert!(typed == in_user || typed == in_database);
            }
        }
    }
}
