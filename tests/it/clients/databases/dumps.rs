//! psql, pgbench, and a database dumped and restored in parallel.

use super::Databases;
use std::fs;

#[test]
fn psql_describes_lists_and_copies_files() {
    let databases = Databases::start();
    let psql = |line: &str| databases.program("psql", &["-X", "-At", "-v", "ON_ERROR_STOP=1", "-c", line]).ok().out();
    let items = databases.world.dir().join("work/items.csv");
    psql(&format!("\\copy (select * from items order by id) to '{}' csv", items.display()));
    assert_eq!(fs::read_to_string(&items).unwrap().lines().count(), 100);
    psql("create table again (like items)");
    assert_eq!(psql(&format!("\\copy again from '{}' csv", items.display())), "COPY 100");
    assert!(psql("\\d items").contains("name|text"));
    assert!(psql("\\dt").contains("again|table|shop_owner"));
    assert!(psql("\\l").contains("copy|") && psql("\\du").contains("shop_owner"));
    psql("drop table again");
    databases.assert_nothing_is_left();
}

#[test]
fn pgbench_counts_right_in_all_its_modes() {
    let databases = Databases::start();
    databases.program("pgbench", &["-i", "-q", "-s", "1", "--foreign-keys"]).ok();
    for mode in ["simple", "extended", "prepared"] {
        let output = databases.program("pgbench", &["-n", "-c", "4", "-j", "2", "-t", "50", "-M", mode]).ok();
        assert!(output.out().contains("number of transactions actually processed: 200/200"), "{}", output.out());
    }
    let sums = "select (select count(*) from pgbench_history), (select sum(delta) from pgbench_history) = \
                (select sum(abalance) from pgbench_accounts), tableowner from pg_tables where tablename = 'pgbench_history'";
    assert_eq!(databases.world.pg().ask("shop", sums), "600|t|shop_owner");
    databases.assert_nothing_is_left();
}

/// Something of most kinds that an owner can make.
const SCHEMA: &str = r#"
create schema app;
comment on schema app is 'what it''s about';
create type app.mood as enum ('sad', 'ok', 'happy');
create domain app.email as text check (value like '%@%');
create type app.pair as (a int, b text);
create sequence app.numbers increment 3 start 7;
create table app.people (
  id int generated always as identity primary key, mail app.email not null unique, mood app.mood default 'ok',
  pairs app.pair[], made timestamptz not null default '2026-11-22 06:00:00+00',
  lowered text generated always as (lower(mail)) stored);
create table app.orders (
  id bigint not null default nextval('app.numbers'), person int references app.people on delete cascade, day date not null,
  price numeric(10, 2) check (price > 0), primary key (id, day)) partition by range (day);
create table app.orders_old partition of app.orders for values from (minvalue) to ('2026-01-01');
create table app.orders_new partition of app.orders for values from ('2026-01-01') to (maxvalue);
create index on app.orders (person) where price > 10;
create index people_first on app.people ((left(mail, 3)) text_pattern_ops, made desc);
comment on column app.people.mail is 'has an @';
create table app.notes (id int primary key, note xml, body bytea, tags text[], about jsonb);
create index on app.notes using gin (about);
alter table app.notes alter column body set storage external;
create view app.recent with (security_barrier) as select * from app.orders where day > '2026-01-01' with check option;
create materialized view app.sums as select person, sum(price) from app.orders group by person;
create unique index on app.sums (person);
create function app.total(who int) returns numeric language sql stable as 'select sum(price) from app.orders where person = who';
create function app.loud() returns trigger language plpgsql as $$ begin new.mail := new.mail || ''; return new; end $$;
create procedure app.nothing() language plpgsql as $$ begin null; end $$;
create aggregate app.product (int) (sfunc = int4mul, stype = int, initcond = '1');
create trigger loud before insert or update of mail on app.people for each row execute function app.loud();
create rule quiet as on delete to app.notes do instead nothing;
alter table app.notes enable row level security;
create policy all_of_them on app.notes to shop_reader using (id > 0);
create statistics app.both (dependencies) on person, price from app.orders;
create text search configuration app.plain (copy = simple);
grant usage on schema app to shop_reader, shop_writer;
grant select on all tables in schema app to shop_reader;
grant insert (mail), select on app.people to shop_writer with grant option;
revoke execute on function app.total(int) from public;
insert into app.people (mail, mood, pairs) select 'p' || n || '@example.com', 'happy', array[row(n, 'x')::app.pair] from generate_series(1, 500) n;
insert into app.orders (person, day, price) select 1 + n % 500, date '2025-06-01' + n % 400, n / 100.0 + 1 from generate_series(1, 3000) n;
insert into app.notes values (1, '<a/>', '\x00ff', '{a,"b c",NULL}', '{"k": [1, 2]}'), (2, null, repeat('x', 300000)::bytea, null, null);
refresh materialized view app.sums;
select lo_from_bytea(0, 'a large object'), lo_from_bytea(0, repeat('y', 100000)::bytea);
"#;

#[test]
fn a_schema_dumped_and_restored_in_parallel_through_the_gate_is_the_same_again() {
    let databases = Databases::start();
    let script = databases.world.dir().join("schema.sql");
    fs::write(&script, SCHEMA).unwrap();
    databases
        .program("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f", script.to_str().unwrap()])
        .ok();
    let what = ["--schema=app", "--blobs"];
    databases.program("pg_dump", &[&["--format=directory", "--file=dump", "--jobs=4"], &what[..]].concat()).ok();
    let restore = ["--exit-on-error", "--jobs=4", "--dbname=copy", "dump"];
    databases.program("pg_restore", &restore).ok();
    let (one, other) = (direct_dump(&databases, "shop", &what), direct_dump(&databases, "copy", &what));
    assert!(one.contains("CREATE TABLE app.people") && one.contains("p500@example.com") && one.contains("lowrite"));
    assert_eq!(one, other);
    // Through the gate in one piece it is that, too.
    let plain = databases.program("pg_dump", &what).ok().out();
    assert_eq!(without_token(&plain), one);
    assert!(databases.world.gateway.ledger().count("session.opened") >= 12, "each of the jobs has a session");
    databases.assert_nothing_is_left();
}

/// By the superuser, past the gate.
fn direct_dump(databases: &Databases, database: &str, what: &[&str]) -> String {
    let pg = databases.world.pg();
    let mut command = databases.command(tidegate_tests::postgres::binary("pg_dump"));
    command.env("PGHOST", pg.socket()).env("PGPORT", pg.port().to_string()).env("PGUSER", "postgres");
    command.env("PGDATABASE", database).env("PGSSLMODE", "disable").args(what);
    without_token(&tidegate_tests::running::run(command, super::LONG).ok().out())
}

/// Newer releases put a random word into each dump, for psql.
fn without_token(dump: &str) -> String {
    let tokens = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    dump.lines().filter(tokens).collect::<Vec<_>>().join("\n")
}
