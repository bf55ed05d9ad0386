//! Whether the functions on a target are the ones that `target trust` prints.
//!
//! What we would install is read out of the same scripts that are installed, so that the two cannot drift apart. Compared
//! is all that decides what a function does and for whom: body, arguments, result, language, settings, SECURITY DEFINER,
//! owner and who may call it. What a server says of itself is its own word; a server that lies here lies everywhere.

use super::super::{
    Auth, PostgresTarget,
    admin::{Link, read},
    fault::{Fault, plain},
    trust::{self, Reach},
};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Row;

/// What decides what a function does.
#[derive(Debug, PartialEq, Eq)]
struct Function {
    arguments: String,
    result: String,
    language: String,
    volatility: String,
    definer: bool,
    settings: BTreeSet<String>,
    body: String,
    callers: BTreeSet<String>,
    owner: Owner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// `tidegate_owner`.
    Ours,
    /// For what nobody else can do.
    Superuser,
    /// Anybody else.
    Other,
}

/// Who installed what a superuser would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Helpers {
    /// A superuser.
    Superusers,
    /// On a managed service, its role with CREATEROLE.
    Managed,
}

type Functions = BTreeMap<String, Function>;

/// What differs in the database of this connection, a sentence each. Empty: all is as it was installed.
pub(super) async fn differences(link: &Link, target: &PostgresTarget, reach: &Reach) -> Result<Vec<String>, Fault> {
    let (admin, schema) = (target.admin_user.as_str(), link.one(SCHEMA, &[]).await?);
    let (by_superuser, managed) = (read::<bool>(&schema, 1)?, matches!(target.auth, Auth::Scram(_)));
    let helpers = if by_superuser || !managed { Helpers::Superusers } else { Helpers::Managed };
    let mut differences = compare(&expected(admin, reach, helpers), &found(link).await?);
    let callers: Vec<String> = read(&schema, 0)?;
    let callers: BTreeSet<String> = callers.into_iter().collect();
    if callers != BTreeSet::from([format!("{admin} USAGE"), "tidegate_owner USAGE".to_owned()]) {
        let said = Vec::from_iter(callers).join(", ");
        differences.push(format!("the schema tidegate is open to others than we let in: {}", plain(&said)));
    }
    if !by_superuser && !managed {
        differences
            .push("the schema tidegate does not belong to a superuser, who could put other functions there".into());
    }
    let others: i64 = read(&schema, 2)?;
    if others > 0 {
        differences.push(format!("{others} thing(s) that are no functions lie in the schema tidegate"));
    }
    Ok(differences)
}

const SCHEMA: &str = "select array(select coalesce(g.rolname::text, 'PUBLIC') || ' ' || a.privilege_type \
    || case when a.is_grantable then ' with grant option' else '' end \
    from aclexplode(n.nspacl) a left join pg_roles g on g.oid = a.grantee where a.grantee <> n.nspowner), o.rolsuper, \
    (select count(*) from pg_depend d where d.refclassid = 'pg_namespace'::regclass and d.refobjid = n.oid \
    and d.classid <> 'pg_proc'::regclass) from pg_namespace n join pg_roles o on o.oid = n.nspowner where n.nspname = 'tidegate'";

const FOUND: &str = "select p.proname::text, pg_get_function_arguments(p.oid), coalesce(pg_get_function_result(p.oid), ''), \
    l.lanname::text, p.provolatile::text, p.prosecdef, coalesce(p.proconfig, '{}'), \
    case when p.prosqlbody is not null or p.probin is not null or p.prokind <> 'f' or p.proisstrict or p.proleakproof \
    then 'of another kind than ours' else p.prosrc end, \
    array(select coalesce(g.rolname::text, 'PUBLIC') || case when a.is_grantable then ' with grant option' else '' end \
    from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a left join pg_roles g on g.oid = a.grantee \
    where a.grantee <> p.proowner), o.rolname::text, o.rolsuper \
    from pg_proc p join pg_language l on l.oid = p.prolang join pg_roles o on o.oid = p.proowner \
    where p.pronamespace = 'tidegate'::regnamespace";

async fn found(link: &Link) -> Result<Functions, Fault> {
    let mut functions = Functions::new();
    for row in &link.rows(FOUND, &[]).await? {
        let (mut name, function): (String, Function) = (read(row, 0)?, described(row)?);
        while functions.contains_key(&name) {
            name.push_str(" (another)"); // none of ours has a second one of its name
        }
        functions.insert(name, function);
    }
    Ok(functions)
}

fn described(row: &Row) -> Result<Function, Fault> {
    let set = |column| Ok::<BTreeSet<String>, Fault>(read::<Vec<String>>(row, column)?.into_iter().collect());
    let (owner, superuser): (&str, bool) = (read(row, 9)?, read(row, 10)?);
    Ok(Function {
        arguments: normal(read(row, 1)?),
        result: normal(read(row, 2)?),
        language: read(row, 3)?,
        volatility: read(row, 4)?,
        definer: read(row, 5)?,
        settings: set(6)?,
        body: read(row, 7)?,
        callers: set(8)?,
        owner: match (owner, superuser) {
            ("tidegate_owner", _) => Owner::Ours,
            (_, true) => Owner::Superuser,
            _ => Owner::Other,
        },
    })
}

fn compare(expected: &Functions, found: &Functions) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, ours) in expected {
        let Some(theirs) = found.get(name) else {
            differences.push(format!("tidegate.{name} is missing"));
            continue;
        };
        let differ = [
            ("body", ours.body != theirs.body),
            ("arguments", ours.arguments != theirs.arguments),
            ("result", ours.result != theirs.result),
            ("language", ours.language != theirs.language),
            ("volatility", ours.volatility != theirs.volatility),
            ("settings", ours.settings != theirs.settings),
            ("SECURITY DEFINER", ours.definer != theirs.definer),
            ("owner", ours.owner != theirs.owner),
            ("callers", ours.callers != theirs.callers),
        ];
        let differ: Vec<&str> = differ.iter().filter(|(_, differs)| *differs).map(|(what, _)| *what).collect();
        if !differ.is_empty() {
            differences.push(format!("tidegate.{name} is not what was installed: its {} differ(s)", differ.join(", ")));
        }
    }
    let strangers = found.keys().filter(|name| !expected.contains_key(*name));
    differences.extend(strangers.map(|name| format!("tidegate.{} is none of ours", plain(name))));
    differences
}

/// What the scripts would create, with the names of this target.
fn expected(admin: &str, reach: &Reach, helpers: Helpers) -> Functions {
    let mut functions = Functions::new();
    for script in trust::OWNED {
        functions.extend(declared(script, Owner::Ours, reach));
    }
    functions.extend(match helpers {
        Helpers::Superusers => declared(trust::SUPERUSER, Owner::Superuser, reach),
        Helpers::Managed => declared(trust::MANAGED, Owner::Ours, reach),
    });
    for (names, caller) in granted(trust::FINISH) {
        let caller = if caller == ":\"admin\"" { admin } else { &caller };
        for name in names {
            // An owner calls what is its own.
            let granted = |function: &&mut Function| function.owner != Owner::Ours || caller != "tidegate_owner";
            if let Some(function) = functions.get_mut(&name).filter(granted) {
                function.callers.insert(caller.to_owned());
            }
        }
    }
    functions
}

/// Each `create function tidegate.NAME(ARGUMENTS) … as BODY` of a script. Our own scripts alone are read by this.
fn declared(script: &str, owner: Owner, reach: &Reach) -> Vec<(String, Function)> {
    let starts = script.split("create function tidegate.").skip(1);
    starts.filter_map(|text| function(text, owner, reach)).collect()
}

fn function(text: &str, owner: Owner, reach: &Reach) -> Option<(String, Function)> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, rest) = rest.split_at_checked(closing(rest)?)?;
    let body_at = rest.find("$$").into_iter().chain(rest.find(":'")).min()?;
    let (header, body) = rest.split_at_checked(body_at)?;
    let body = match body.strip_prefix("$$") {
        Some(body) => body.split_once("$$")?.0.to_owned(),
        None => trust::variable(body.strip_prefix(":'")?.split_once('\'')?.0, reach)?,
    };
    let header = header.trim_start_matches(')').split_whitespace().collect::<Vec<_>>().join(" ");
    let (result, terms) = header.split_once("language ")?;
    let result = result.trim().strip_prefix("returns ").unwrap_or("record");
    let mut settings: Vec<&str> = terms.split(" set ").collect();
    let first = settings.remove(0);
    let settings = settings.iter().map(|setting| setting.trim_end_matches(" as").trim_end_matches(" security definer"));
    let settings = settings.filter_map(|setting| setting.split_once(" = "));
    let volatility = ["immutable", "stable"].into_iter().find(|word| first.contains(word)).unwrap_or("volatile");
    let function = Function {
        arguments: normal(arguments),
        result: normal(result),
        language: first.split(' ').next()?.to_owned(),
        volatility: volatility.chars().take(1).collect(),
        definer: terms.contains("security definer"),
        settings: settings.map(|(name, value)| format!("{name}={}", value.trim_matches('\''))).collect(),
        body,
        callers: BTreeSet::new(),
        owner,
    };
    Some((name.to_owned(), function))
}

/// Where the bracket closes that stands before the text.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1usize;
    text.char_indices().find_map(|(at, c)| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(at)
    })
}

/// Each `grant execute on function NAMES to WHO;` of a script.
fn granted(script: &str) -> Vec<(Vec<String>, String)> {
    let statement = |text: &str| {
        let (names, caller) = text.split_once(';')?.0.rsplit_once(" to ")?;
        let names = names.split(',').filter_map(|name| name.trim().strip_prefix("tidegate."));
        Some((names.map(|name| name.trim().to_owned()).collect(), caller.trim().to_owned()))
    };
    script.split("grant execute on function ").skip(1).filter_map(statement).collect()
}

/// Types as PostgreSQL itself names them, in lower case, single spaces: both sides go through this.
fn normal(text: &str) -> String {
    let text = text.to_lowercase().replace('(', " ( ").replace(')', " ) ").replace(',', " , ").replace("[]", " []");
    let word = |word| match word {
        "int" | "int4" => "integer",
        "float8" => "double precision",
        "timestamptz" => "timestamp with time zone",
        "bool" => "boolean",
        word => word,
    };
    text.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_function_of_the_scripts_is_known_with_its_callers() {
        let functions = expected("tidegate", &Reach::default(), Helpers::Superusers);
        let declarations: usize =
            trust::OWNED.iter().chain([&trust::SUPERUSER]).map(|s| s.matches("create function").count()).sum();
        assert_eq!(functions.len(), declarations);
        assert_eq!(functions["mint"].callers, BTreeSet::from(["tidegate".to_owned()]));
        assert_eq!(functions["_end"].callers, BTreeSet::from(["tidegate_owner".to_owned()]));
        assert!(functions["_ours"].callers.is_empty());
        assert_eq!(functions["disable"].settings.len(), 2);
        assert_eq!(functions["_groups"].body, "select array[]::text[]");
        assert!(functions.values().all(|function| function.settings.contains("search_path=pg_catalog, pg_temp")));
    }

    #[test]
    fn a_difference_is_named_with_what_differs() {
        let ours = expected("tidegate", &Reach::default(), Helpers::Superusers);
        let mut theirs = expected("tidegate", &Reach::default(), Helpers::Superusers);
        assert_eq!(compare(&ours, &theirs), Vec::<String>::new());
        let mint = theirs.get_mut("mint").unwrap();
        mint.body.push(' ');
        mint.callers.insert("PUBLIC".into());
        theirs.remove("lend");
        let found = compare(&ours, &theirs);
        assert_eq!(found.len(), 2);
        assert!(found.contains(&"tidegate.mint is not what was installed: its body, callers differ(s)".to_owned()));
        assert!(found.contains(&"tidegate.lend is missing".to_owned()));
    }
}
