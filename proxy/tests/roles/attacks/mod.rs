//! What a malicious session can try, each by name: its code never runs with anybody else's rights, and nothing is left; or the
//! lease is held and says what a human must look at.
//!
//! The code that a session plants is a canary: it writes a line into the server's log, which no rollback takes back, with the
//! role that it runs as. After the role was disabled no such line may come any more, neither in the teardown nor when a
//! superuser goes on in good faith, looking even into what was left.

mod code;
mod flood;
mod marked;
mod odd;
mod others;
mod presets;
mod privileges;

use crate::gate::Gate;
use tidegate_grants::{Lease, Receipt};
use tidegate_proxy::{
    issuer::{TargetError, Teardown},
    protocol::postgres::issuer::RoleCredential,
};
use tokio_postgres::Client;

/// A function of the session that says who runs it.
const SPY: &str = "create function app.spy(out int) language plpgsql as \
                   'begin raise log ''CANARY runs as %'', current_user; $1 := 1; end'";
/// One for triggers.
const TRIGGER_SPY: &str = "create function app.fires() returns trigger language plpgsql as \
                           'begin raise log ''CANARY runs as %'', current_user; return new; end'";

/// What others do in good faith afterwards, as superuser with the search path that everybody has.
const BYSTANDER: &[&str] = &[
    "analyze",
    "vacuum",
    "insert into app.orders values (1)",
    "update app.orders set id = id + 1",
    "select count(*) from app.orders where id = 2",
    "delete from app.orders",
    "select format('%s', 'a'), 'a' || 'b', 1 + 1, 2 = 2, lower('X'), now()",
    "do $$ declare thing record; act text; begin
       for thing in select c.oid::regclass as name from pg_class c join pg_roles r on r.oid = c.relowner
         where r.rolname ~ '^tgq?_' and c.relkind in ('r', 'p', 'v', 'm')
       loop
         foreach act in array array['select * from %s', 'insert into %s default values', 'delete from %s', 'analyze %s',
                                    'refresh materialized view %s', 'reindex table %s'] loop
           begin execute format(act, thing.name); exception when others then null; end;
         end loop;
       end loop;
     end $$",
];

/// Roles as they are but for the heirs, memberships but for theirs, and what hangs on roles that are gone.
const ROLES: &str = "
    select string_agg(line, E'\\n' order by line) from (
      select a::text from (select rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,
             rolbypassrls, rolconnlimit, rolpassword, rolvaliduntil from pg_authid where rolname !~ '^tgq_') a
      union all select format('%s in %s by %s', member::regrole, roleid::regrole, grantor::regrole) from pg_auth_members m
             where not exists (select from pg_roles where oid in (m.member, m.roleid) and rolname ~ '^tgq_')
      union all select 'dangling ' || s::text from pg_shdepend s where refclassid = 'pg_authid'::regclass
             and not exists (select from pg_authid where oid = refobjid)) t (line)";

/// A session that means harm.
struct Attack {
    gate: Gate,
    lease: Lease,
    credential: RoleCredential,
    client: Client,
    roles: String,
}

impl Attack {
    /// A session under this entitlement, on a server that the script was run on before.
    async fn by(entitlement: &str, before: &str) -> Self {
        let gate = Gate::open();
        gate.server.script("shop", before);
        let roles = gate.server.ask("postgres", ROLES);
        let (lease, credential) = gate.minted(entitlement).await;
        let client = gate.login(&credential).await.unwrap();
        Self { gate, lease, credential, client, roles }
    }

    /// What PostgreSQL lets it do.
    async fn does(&self, sql: &str) -> &Self {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        self
    }

    /// What PostgreSQL keeps it from.
    async fn cannot(&self, sql: &str) -> &Self {
        assert!(self.client.batch_execute(sql).await.is_err(), "it could: {sql}");
        self.client.batch_execute("rollback").await.unwrap();
        self
    }

    /// What depends on the version.
    async fn tries(&self, sql: &str) -> bool {
        let done = self.client.batch_execute(sql).await.is_ok();
        self.client.batch_execute("rollback").await.ok();
        done
    }

    /// PostgreSQL's major version.
    fn version(&self) -> u32 {
        let number: u32 = self.gate.server.ask("shop", "show server_version_num").parse().unwrap();
        number / 10_000
    }

    fn ask(&self, sql: &str) -> String {
        self.gate.server.ask("shop", sql)
    }

    /// Torn down, up to the receipt. What it planted is not run by that, nor by others afterwards.
    async fn torn_down(&self) -> Result<Receipt, TargetError> {
        self.gate.issuer.disable(&self.lease).await?;
        assert!(self.client.simple_query("select 1").await.is_err(), "its session goes on");
        assert!(self.gate.login(&self.credential).await.is_err(), "it can still log in");
        let heard = self.gate.server.log().len();
        let cleaned = self.gate.issuer.clean(&self.lease).await;
        let receipt = match cleaned {
            Ok(()) => self.gate.issuer.inspect(&self.lease).await,
            Err(error) => Err(error),
        };
        for sql in BYSTANDER {
            self.gate.server.try_ask("shop", sql);
        }
        let log = self.gate.server.log().split_off(heard);
        let sung: Vec<&str> = log.lines().filter(|line| line.contains("CANARY runs as")).collect();
        assert!(sung.is_empty(), "its code ran: {sung:#?}");
        assert_eq!(self.ask("select string_agg(rolname, ' ') from pg_roles where rolsuper"), "postgres");
        assert_eq!(self.ask("select count(*) from pg_roles where rolname ~ '^tg[lq]?_' and rolcanlogin"), "0");
        receipt
    }

    /// Nothing is left but what waits with the heir.
    async fn leaves_nothing(&self) {
        let receipt = self.torn_down().await.unwrap();
        assert!(receipt.clean, "{receipt:#?}");
        assert_eq!(self.gate.server.ask("postgres", ROLES), self.roles);
    }

    /// The same, for what had a finding before.
    async fn leaves_nothing_now(&self) {
        let receipt = self.gate.tear_down(&self.lease).await.unwrap();
        assert!(receipt.clean, "{receipt:#?}");
        assert_eq!(self.gate.server.ask("postgres", ROLES), self.roles);
    }

    /// The role is gone, and the lease is held for a human because of this.
    async fn is_shown(&self, what: &str, item: &str) {
        let receipt = self.torn_down().await.unwrap();
        assert!(!receipt.clean, "nobody is told: {receipt:#?}");
        let finding = receipt.findings.iter().find(|finding| finding.what == what && finding.found > 0);
        let finding = finding.unwrap_or_else(|| panic!("{what}: {receipt:#?}"));
        assert!(finding.items.iter().any(|line| line.contains(item)), "{item}: {finding:#?}");
        assert_eq!(self.ask("select count(*) from pg_roles where rolname ~ '^tg_'"), "0");
        assert_eq!(self.gate.issuer.acceptable(&self.lease, &receipt), Ok(()));
        self.is_put_in_order(what, &receipt).await;
    }

    /// The statements that a human is given show it, and put it in order.
    async fn is_put_in_order(&self, what: &str, receipt: &Receipt) {
        let advice = self.gate.issuer.advice(&self.lease, Some(receipt));
        let advice = advice.iter().find(|advice| advice.about == what).unwrap();
        let shown = self.gate.server.script("postgres", &advice.look.join("\n"));
        assert!(!shown.trim().is_empty(), "{advice:#?}");
        let finish = advice.finish.iter().map(|sql| format!("{}\\gexec\n", sql.trim_end_matches(';')));
        self.gate.server.script("shop", &finish.collect::<String>());
        let receipt = self.gate.issuer.inspect(&self.lease).await.unwrap();
        let left = receipt.findings.iter().find(|finding| finding.what == what).map_or(0, |finding| finding.found);
        // What a password was is not known, nor what a default or a routine should be.
        let only_accepted = what.ends_with(": roles")
            || what.ends_with(": routines of group roles")
            || receipt.findings.iter().flat_map(|f| &f.items).any(|i| i.contains("default value"));
        assert!(left == 0 || only_accepted, "{advice:#?} {receipt:#?}");
    }

    /// The role stays, disabled, until a human has done what the error says.
    async fn waits_for_a_human(&self, said: &str) {
        match self.torn_down().await {
            Err(TargetError::Held { cause, .. }) => assert!(cause.contains(said), "{cause}"),
            other => panic!("{other:#?}"),
        }
    }
}
