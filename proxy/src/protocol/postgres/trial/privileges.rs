//! Every privilege too many: of the gateway's own login, of the roles that `target trust` makes, of PUBLIC, and of the
//! groups that sessions become members of.
//!
//! The survey returns names; what is said of them, and the SQL that mends it, is written here. A hostile server may name what
//! it likes, and never what an admin is told to run: names are quoted.

use super::super::{
    admin::{Link, read},
    fault::{Fault, plain},
    quoted::ident,
    trust::Reach,
};
use crate::trial::Outcome;
use tokio_postgres::types::Type;

const SURVEY: &str = include_str!("../schema/survey.sql");
/// More than this of one server is not listed.
const MOST: usize = 60;

/// Something that is not as it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Surplus {
    /// [`Outcome::Open`], or [`Outcome::Failed`] where sessions do not open because of it.
    pub(super) outcome: Outcome,
    /// A sentence.
    pub(super) said: String,
    /// What to do.
    pub(super) next: String,
}

/// What is too much, seen from the database of this connection.
pub(super) async fn surplus(link: &Link, admin: &str, reach: &Reach, database: &str) -> Result<Vec<Surplus>, Fault> {
    let groups: Vec<&str> = reach.groups.iter().chain(&reach.owners).map(|name| name.as_str()).collect();
    let databases: Vec<&str> = reach.databases.iter().map(|name| name.as_str()).collect();
    let rows =
        link.rows(SURVEY, &[(&admin, Type::TEXT), (&groups, Type::TEXT_ARRAY), (&databases, Type::TEXT_ARRAY)]).await?;
    let mut found = Vec::new();
    for row in rows.iter().take(MOST) {
        let names: Vec<Option<String>> = read(row, 1)?;
        let names: Vec<String> = names.into_iter().map(|name| plain(&name.unwrap_or_default())).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        found.push(judged(read(row, 0)?, &names, admin, database));
    }
    if rows.len() > MOST {
        let said = format!("{} more like these", rows.len() - MOST);
        found.push(Surplus { outcome: Outcome::Open, said, next: "mend these first, and test again".into() });
    }
    Ok(found)
}

/// What one row of the survey means.
fn judged(kind: &str, names: &[&str], admin: &str, database: &str) -> Surplus {
    if let Some(missing) = missing(kind, names, database) {
        return missing;
    }
    let at = |index: usize| names.get(index).copied().unwrap_or("?");
    let (said, next) = match kind {
        "attribute" => (
            format!("{} has {}", at(0), at(1)),
            sql(database, &format!("alter role {} no{}", ident(at(0)), keyword(at(1)))),
        ),
        "member" => (
            format!("{} is a member of {}", at(0), at(1)),
            sql(database, &format!("revoke {} from {}", ident(at(1)), ident(at(0)))),
        ),
        "holds" => (
            format!("{} {} {} (database {database})", at(0), at(1), at(2)),
            format!(
                "give it to somebody else, or revoke it: as a superuser, `\\dp`, `\\dn+`, `\\ddp` in {database} show who granted it"
            ),
        ),
        "elsewhere" => (
            format!("{} owns or may use something in database {}, which no entitlement names", at(0), at(1)),
            format!(
                "take it away there; or if an entitlement named {} before: drop its schemas tidegate and tidegate_attic",
                at(1)
            ),
        ),
        "database" => (
            format!("{} has {} on database {}", at(0), at(1), at(2)),
            sql(database, &format!("revoke {} on database {} from {}", keyword(at(1)), ident(at(2)), ident(at(0)))),
        ),
        "database of all" => (
            format!("everybody has {} on database {}: {admin} and every session too", at(0), at(1)),
            sql(database, &format!("revoke {} on database {} from public", keyword(at(0)), ident(at(1)))),
        ),
        "schema of all" => (
            format!("everybody may create in schema {} of {database}: {admin} and every session too", at(0)),
            sql(database, &format!("revoke create on schema {} from public", ident(at(0)))),
        ),
        "data of all" => (
            format!(
                "everybody may use {} table(s) or view(s) of {database}, {admin} too; the first is {}.{}",
                at(0),
                at(1),
                at(2)
            ),
            sql(database, &format!("revoke all on table {}.{} from public", ident(at(1)), ident(at(2)))),
        ),
        "definers of all" => (
            format!(
                "everybody may call {} SECURITY DEFINER function(s) of {database}, {admin} too; the first is {}",
                at(0),
                at(1)
            ),
            format!("in {database}: `\\df+` shows them; revoke EXECUTE from PUBLIC, and grant it to whom it is for"),
        ),
        _ => return judged_of_others(kind, names, database),
    };
    Surplus { outcome: Outcome::Open, said, next }
}

/// The same, for what sessions do not open without.
fn missing(kind: &str, names: &[&str], database: &str) -> Option<Surplus> {
    let name = names.first().copied().unwrap_or("?");
    let again = "install `tidegate target trust` again (--part sql)".to_owned();
    let (said, next) = match kind {
        "absent" => (format!("there is no role {name}"), again),
        "powerless" => (
            "tidegate_owner has no CREATEROLE: no role of a session can be made".to_owned(),
            sql(database, "alter role \"tidegate_owner\" createrole"),
        ),
        "no admin" => {
            (format!("tidegate_owner may not make sessions members of {name}: it has no ADMIN OPTION"), again)
        }
        "group absent" => (
            format!("an entitlement names the role {name}, which is not there"),
            format!("create it, or correct the entitlement: create role {} nologin", ident(name)),
        ),
        _ => return None,
    };
    Some(failed(said, next))
}

/// The same, for what is not the gateway's own.
fn judged_of_others(kind: &str, names: &[&str], database: &str) -> Surplus {
    let at = |index: usize| names.get(index).copied().unwrap_or("?");
    let (said, next) = match kind {
        "default" => (
            format!(
                "what {} will create in {database} is granted to {} at once (type {}, schema {:?})",
                at(1),
                at(0),
                at(2),
                at(3)
            ),
            format!(
                "as a superuser in {database}: `\\ddp` shows it; ALTER DEFAULT PRIVILEGES FOR ROLE {} … REVOKE takes it back",
                ident(at(1))
            ),
        ),
        "event trigger" => (
            format!(
                "the event trigger {} of {database} runs {} of {}, who is no superuser, at each mint and teardown",
                at(0),
                at(1),
                at(2)
            ),
            sql(database, &format!("alter event trigger {} disable", ident(at(0)))),
        ),
        "setting missing" => (
            format!("the gateway's login does not start with {}", at(0)),
            "install `tidegate target trust` again (--part sql)".to_owned(),
        ),
        "setting too many" => (
            format!("the gateway's login starts with {}, which we did not set", at(0)),
            "alter role … reset it, as a superuser".to_owned(),
        ),
        "group power" => {
            let said = format!("a session can become {}, which is {}", at(0), at(1));
            let next =
                "give sessions a role without it: name another in the entitlement, or take it from this one".to_owned();
            // Mint refuses what could make roles that outlive the session.
            return if at(2) == "true" { failed(said, next) } else { Surplus { outcome: Outcome::Open, said, next } };
        }
        "group login" => (
            format!(
                "a session can become {}, which logs in by itself: where SET ROLE reaches it, a session can set its password",
                at(0)
            ),
            sql(database, &format!("alter role {} nologin", ident(at(0)))),
        ),
        _ => ("the server answered something that was not asked".to_owned(), "update the gateway".to_owned()),
    };
    Surplus { outcome: Outcome::Open, said, next }
}

fn failed(said: String, next: String) -> Surplus {
    Surplus { outcome: Outcome::Failed, said, next }
}

fn sql(database: &str, statement: &str) -> String {
    format!("as a superuser in {database}: {statement};")
}

/// An attribute or a privilege: one word.
fn keyword(word: &str) -> String {
    word.chars().filter(char::is_ascii_alphabetic).take(20).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_server_made_up_stays_a_name_in_what_an_admin_is_told_to_run() {
        let surplus = judged("member", &["x\"; drop database shop; --", "tidegate_owner"], "tidegate", "shop");
        assert_eq!(
            surplus.next,
            "as a superuser in shop: revoke \"tidegate_owner\" from \"x\"\"; drop database shop; --\";"
        );
    }

    #[test]
    fn what_mint_refuses_is_a_failure_and_the_rest_is_open() {
        let of = |refused| judged("group power", &["boss", "SUPERUSER", refused], "tidegate", "shop").outcome;
        assert_eq!((of("true"), of("false")), (Outcome::Failed, Outcome::Open));
    }
}
