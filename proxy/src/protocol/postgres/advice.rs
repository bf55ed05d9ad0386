//! What a DBA can do about a held lease, as statements for psql.
//!
//! No text of the target is put into a statement: what it calls its things is hostile, and its messages are cut. The statements
//! find what they are about by the names of our configuration and by OID, and those that put things in order print what they
//! would run: `\gexec` in the place of the semicolon runs it.

use super::{
    quoted::{ident, literal, psql_argument, text_array},
    receipt::{MEANWHILE, NOBODY_SAYS_WHO},
    role::Notes,
};
use crate::issuer::{Advice, ELSEWHERE};
use tidegate_grants::{Lease, Receipt};

/// What of a receipt is of others: an admin may accept it. The rest is the role itself.
const OF_OTHERS: [(&str, Recipe); 16] = [
    ("prepared transactions of roles that it could become", prepared),
    ("changed while it lived: roles", roles),
    ("changed while it lived: memberships", memberships),
    ("changed while it lived: default privileges", default_privileges),
    ("changed while it lived: privileges given on", privileges),
    ("changed while it lived: privileges on parameters, given on", parameters),
    ("changed while it lived: settings", settings),
    ("made or changed while it lived: SECURITY DEFINER routines of roles that it could become", routines),
    ("made or changed while it lived: routines of group roles", changed_routines),
    ("made while it lived: objects of group roles", objects),
    ("made while it lived: code on tables of others", code),
    ("on tables of others: uses what the session left", hanging),
    ("children of tables of others", children),
    ("left with the heir: code that could not be taken off", expressions),
    (ELSEWHERE, server),
    ("schemas that come first for the role of their name", schemas),
];

type Recipe = fn(&Names) -> (String, String);

/// What the statements are about, quoted.
struct Names {
    role: String,
    role_text: String,
    heir: String,
    oid: String,
    /// The roles that the session could become, as an array.
    reach: String,
    minted: String,
    mint: String,
}

impl Names {
    fn of(lease: &Lease, notes: &Notes) -> Self {
        let heir = lease.name().replacen("tg_", "tgq_", 1);
        let reach = text_array(notes.groups().into_iter().chain(notes.owner()).chain(["tidegate_sessions"]));
        let oid = notes.oid.map_or_else(
            || format!("(select oid from pg_roles where rolname = {})", literal(lease.name())),
            |oid| oid.to_string(),
        );
        let before: Option<serde_json::Value> =
            notes.before.as_deref().and_then(|before| serde_json::from_str(before).ok());
        let mint = before.as_ref().and_then(|before| before.get("transaction")?.get(0)?.as_str()?.parse::<u64>().ok());
        Self {
            role: ident(lease.name()),
            role_text: literal(lease.name()),
            heir: literal(&heir),
            oid,
            reach: format!(
                "(with recursive reach (oid) as (select oid from pg_roles where rolname = any ({reach}) union select \
                 roleid from pg_auth_members join reach on member = reach.oid) select oid from reach)"
            ),
            minted: notes.minted.map_or_else(|| "'-infinity'".to_owned(), |at| format!("to_timestamp({at})")),
            mint: mint.map_or_else(|| "2147483647".to_owned(), |xid| format!("age('{xid}'::xid8::xid)")),
        }
    }
}

/// Whether this line of a receipt is about others, and not about the role itself.
pub(super) fn is_of_others(what: &str) -> bool {
    OF_OTHERS.iter().any(|(of_others, _)| *of_others == what)
}

/// For each thing that is left.
pub(super) fn advice(lease: &Lease, receipt: Option<&Receipt>) -> Vec<Advice> {
    let Ok(notes) = Notes::of(lease) else { return Vec::new() };
    let names = Names::of(lease, &notes);
    let connect = format!("\\connect {}", psql_argument(notes.database.as_str()));
    let findings = receipt.map(|receipt| receipt.findings.as_slice()).unwrap_or_default();
    let left = |what: &str| findings.iter().any(|finding| finding.what == what && finding.found > 0);
    let mut advice = Vec::new();
    if left("pg_roles") || receipt.is_none() {
        advice.push(of_the_role(&names, &connect));
    }
    for (about, recipe) in OF_OTHERS.iter().filter(|(about, _)| left(about)) {
        let (look, finish) = recipe(&names);
        let mut look = vec![connect.clone(), look];
        if about.contains(MEANWHILE) {
            look.push(format!(
                "-- Who did it: {NOBODY_SAYS_WHO}. If so: tidegate lease accept {} --reason …",
                lease.id()
            ));
        }
        advice.push(Advice { about: (*about).to_owned(), look, finish: vec![finish] });
    }
    advice
}

/// The role is still there: what keeps it.
fn of_the_role(names: &Names, connect: &str) -> Advice {
    let Names { role, role_text, oid, .. } = names;
    Advice {
        about: "the role itself".to_owned(),
        look: vec![
            connect.to_owned(),
            format!("select oid, rolname, rolcanlogin, shobj_description(oid, 'pg_authid') from pg_roles where oid = {oid};"),
            format!("select pid, datname, state, left(query, 60) as query from pg_stat_activity where usesysid = {oid};"),
            format!("select gid, database, owner, prepared from pg_prepared_xacts where owner = {role_text} or owner = any (array(select oid::regrole::text from pg_roles where oid in {}));", names.reach),
            "-- In each database of the first column:".to_owned(),
            format!("select d.datname, s.deptype, pg_describe_object(s.classid, s.objid, s.objsubid) from pg_shdepend s left join pg_database d on d.oid = s.dbid where s.refclassid = 'pg_authid'::regclass and s.refobjid = {oid};"),
        ],
        finish: vec![
            format!("alter role {role} nologin password null connection limit 0;"),
            format!("select pg_terminate_backend(pid) from pg_stat_activity where usesysid = {oid};"),
            "-- In each database that the list above names, once nothing there is worth keeping (or give it to somebody first: \
             reassign owned by … to …):"
                .to_owned(),
            format!("drop owned by {role};"),
            format!("drop role {role};"),
        ],
    }
}

fn prepared(names: &Names) -> (String, String) {
    let of = format!(
        "from pg_prepared_xacts where owner = any (array(select oid::regrole::text from pg_roles where oid in {})) and prepared >= {}",
        names.reach, names.minted
    );
    (
        format!("select gid, database, owner, prepared {of};"),
        format!("select format('rollback prepared %L', gid) {of} and database = current_database();"),
    )
}

fn roles(names: &Names) -> (String, String) {
    let of = format!("from pg_authid where oid in {} and age(xmin) < {}", names.reach, names.mint);
    (
        format!(
            "select rolname, rolcanlogin, rolsuper, rolpassword is not null as has_password, rolvaliduntil, rolconnlimit {of};"
        ),
        format!("select format('alter role %I password null', rolname) {of} and rolpassword is not null;"),
    )
}

fn memberships(names: &Names) -> (String, String) {
    let of = format!(
        "from pg_auth_members where age(xmin) < {} and (grantor in {reach} or roleid in {reach})",
        names.mint,
        reach = names.reach
    );
    (
        format!("select member::regrole, roleid::regrole, grantor::regrole, admin_option {of};"),
        format!(
            "select format('revoke %s from %s granted by %s', roleid::regrole, member::regrole, grantor::regrole) {of};"
        ),
    )
}

fn default_privileges(names: &Names) -> (String, String) {
    let of = format!("from pg_default_acl where defaclrole in {}", names.reach);
    let kinds = "case defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'routines' when 'T' then 'types' when 'n' then 'schemas' else 'large objects' end";
    let place = "case defaclnamespace when 0 then '' else format('in schema %s ', defaclnamespace::regnamespace) end";
    (
        format!("select defaclrole::regrole, defaclnamespace::regnamespace, defaclobjtype, defaclacl {of};"),
        format!(
            "select format('alter default privileges for role %s %srevoke all on %s from %s', defaclrole::regrole, {place}, {kinds}, case x.grantee when 0 then 'public' else x.grantee::regrole::text end) {}, aclexplode(defaclacl) x where x.grantee <> defaclrole and defaclrole in {};",
            "from pg_default_acl", names.reach
        ),
    )
}

fn privileges(names: &Names) -> (String, String) {
    given_on(names, "from pg_class c, aclexplode(c.relacl) x", "c.oid::regclass", "")
}

fn parameters(names: &Names) -> (String, String) {
    given_on(names, "from pg_parameter_acl c, aclexplode(c.paracl) x", "c.parname", "parameter ")
}

/// What was given on by who can be reached, and how it is taken back. `from`: entries of a catalog with their privileges; `what`, of
/// this `kind`: on which they are.
fn given_on(names: &Names, from: &str, what: &str, kind: &str) -> (String, String) {
    let (reach, mint) = (&names.reach, &names.mint);
    let of = format!("{from} where x.grantor in {reach} and x.grantor <> x.grantee and age(c.xmin) < {mint}");
    let to = "case x.grantee when 0 then 'public' else x.grantee::regrole::text end";
    (
        format!("select {what}, x.privilege_type, {to} as grantee, x.grantor::regrole {of};"),
        format!(
            "select format('set role %s; revoke %s on {kind}%s from %s cascade; reset role', x.grantor::regrole, x.privilege_type, {what}, {to}) {of};"
        ),
    )
}

fn settings(names: &Names) -> (String, String) {
    let of = format!(
        "from pg_db_role_setting left join pg_database d on d.oid = setdatabase where age(pg_db_role_setting.xmin) < {} and (setrole in {reach} or setrole = 0 and d.datdba in {reach})",
        names.mint,
        reach = names.reach
    );
    (
        format!("select setrole::regrole, d.datname, setconfig {of};"),
        format!(
            "select case setrole when 0 then format('alter database %I reset all', d.datname) else format('alter role %s %sreset all', setrole::regrole, 'in database ' || quote_ident(d.datname) || ' ') end {of};"
        ),
    )
}

fn routines(names: &Names) -> (String, String) {
    let of = format!("from pg_proc where prosecdef and proowner in {} and age(xmin) < {}", names.reach, names.mint);
    (
        format!("select oid::regprocedure, proowner::regrole, pg_get_functiondef(oid) {of} and prokind <> 'a';"),
        format!("select format('alter routine %s security invoker', oid::regprocedure) {of};"),
    )
}

/// What they said before nobody knows.
fn changed_routines(names: &Names) -> (String, String) {
    (
        format!(
            "select oid::regprocedure, proowner::regrole, pg_get_functiondef(oid) from pg_proc where not prosecdef and prokind <> 'a' and proowner in {} and age(xmin) < {};",
            names.reach, names.mint
        ),
        "-- Put back what they said before, from your migrations; then: tidegate lease accept".to_owned(),
    )
}

fn objects(names: &Names) -> (String, String) {
    let of = format!(
        "from pg_shdepend s, pg_identify_object(s.classid, s.objid, 0) i where s.refclassid = 'pg_authid'::regclass and s.deptype = 'o' and s.refobjid in {} and age(s.xmin) < {} and s.dbid = (select oid from pg_database where datname = current_database())",
        names.reach, names.mint
    );
    (
        format!("select s.refobjid::regrole, i.type, i.identity {of};"),
        format!(
            "select case i.type when 'large object' then format('select lo_unlink(%s)', i.identity) else format('drop %s %s restrict', i.type, i.identity) end {of};"
        ),
    )
}

fn code(names: &Names) -> (String, String) {
    let of = format!(
        "from (select 'pg_trigger'::regclass, oid, tgrelid, 0::oid, xmin from pg_trigger where not tgisinternal union all select 'pg_rewrite'::regclass, oid, ev_class, 0, xmin from pg_rewrite union all select 'pg_policy'::regclass, oid, polrelid, 0, xmin from pg_policy union all select 'pg_attrdef'::regclass, oid, adrelid, 0, xmin from pg_attrdef union all select 'pg_constraint'::regclass, oid, conrelid, contypid, xmin from pg_constraint where contype = 'c' union all select 'pg_type'::regclass, oid, 0, oid, xmin from pg_type where typtype = 'd' and typdefaultbin is not null union all select 'pg_cast'::regclass, oid, 0, casttarget, xmin from pg_cast) code (class, object, relation, type, made) left join pg_class c on c.oid = relation left join pg_type y on y.oid = code.type, pg_identify_object(class, object, 0) i where age(made) < {} and coalesce(c.relowner, y.typowner)::regrole::text !~ '^tgq_'",
        names.mint
    );
    (
        format!("select i.type, i.identity {of};"),
        format!(
            "select case i.type when 'domain constraint' then format('alter domain %s drop constraint %I', code.type::regtype, (select conname from pg_constraint where oid = object)) when 'type' then format('alter domain %s drop default', code.type::regtype) else format('drop %s %s', i.type, i.identity) end {of} and i.type in ('trigger', 'rule', 'policy', 'cast', 'domain constraint', 'type');"
        ),
    )
}

fn hanging(names: &Names) -> (String, String) {
    let of = format!(
        "from pg_depend d join pg_proc p on d.refclassid = 'pg_proc'::regclass and d.refobjid = p.oid join pg_roles h on h.oid = p.proowner left join tidegate_attic.routine r on r.is_now = p.proname, pg_identify_object(d.classid, d.objid, d.objsubid) i where h.rolname = {} and d.classid <> 'pg_trigger'::regclass",
        names.heir
    );
    (
        format!("select i.type, i.identity, r.was, r.definition {of};"),
        format!(
            "select format('drop %s %s restrict', i.type, i.identity) {of} and i.type in ('policy', 'rule', 'index', 'view', 'materialized view');"
        ),
    )
}

fn children(names: &Names) -> (String, String) {
    let of = format!(
        "from pg_inherits join pg_class c on c.oid = inhrelid join pg_roles h on h.oid = c.relowner where h.rolname = {}",
        names.heir
    );
    (
        format!("select inhrelid::regclass, inhparent::regclass {of};"),
        format!(
            "select format('alter table %s no inherit %s', inhrelid::regclass, inhparent::regclass) {of} and not c.relispartition union all select format('alter table %s detach partition %s', inhparent::regclass, inhrelid::regclass) {of} and c.relispartition;"
        ),
    )
}

fn server(_: &Names) -> (String, String) {
    (
        "select system_identifier, pg_postmaster_start_time() from pg_control_system();".to_owned(),
        "-- On the server where the role was made, not on this one: is it there, may it log in?".to_owned(),
    )
}

fn expressions(names: &Names) -> (String, String) {
    let of = format!("from pg_roles h, tidegate._calling(h.oid) c where h.rolname = {}", names.heir);
    (format!("select c.name, c.definition {of};"), format!("select c.off {of};"))
}

fn schemas(names: &Names) -> (String, String) {
    let of = format!(
        "from pg_namespace n join pg_roles h on h.oid = n.nspowner where h.rolname = {} and nspname in (select rolname from pg_roles)",
        names.heir
    );
    (
        format!("select nspname {of};"),
        format!("select format('alter schema %I rename to %I', nspname, 'left_' || n.oid) {of};"),
    )
}
