//! What a recording says of SQL: statements with their parameters, which answer belongs to which, COPY, transactions; and what
//! comes of it in exports.

use crate::{
    raw::{self, Raw},
    wire,
};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, TryStreamExt as _, future};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::process::Command;
use tidegate_tests::{
    World,
    config::PUBLIC_NAME,
    daemon::Signal,
    postgres::{binary, version},
    running::run,
    wait_until,
    world::PATIENCE,
};
use tokio_postgres::{
    Client,
    error::SqlState,
    types::{FromSql, IsNull, ToSql, Type, to_sql_checked},
};
use tokio_postgres_rustls::MakeRustlsConnect;

type Whatever = Box<dyn std::error::Error + Sync + Send>;

/// A value as it stands on the wire.
#[derive(Debug, Clone)]
struct Binary(Vec<u8>);

impl ToSql for Binary {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Whatever> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }
    fn accepts(_: &Type) -> bool {
        true
    }
    to_sql_checked!();
}

impl FromSql<'_> for Binary {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Whatever> {
        Ok(Self(raw.to_vec()))
    }
    fn accepts(_: &Type) -> bool {
        true
    }
}

/// One parameter.
type One<'a> = [&'a (dyn ToSql + Sync); 1];

fn world() -> World {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    world
}

/// A session of tokio-postgres through the gate, to its end; then its recording.
pub(crate) fn session(world: &World, work: impl AsyncFnOnce(&mut Client)) -> Recorded {
    let mut config = tokio_postgres::Config::new();
    config.host(PUBLIC_NAME).hostaddr("127.0.0.1".parse().unwrap()).port(world.gateway.postgres().port());
    config.user("alice").password(world.password("alice", "orders")).dbname("orders/shop");
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    let tls = MakeRustlsConnect::new(wire::tls_config(world));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut client, connection) = config.connect(tls).await.unwrap();
        let connection = tokio::spawn(connection);
        work(&mut client).await;
        drop(client);
        connection.await.unwrap().unwrap();
    });
    Recorded::newest(world)
}

/// What the recording of a session says.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) id: String,
    pub(crate) events: Vec<Value>,
}

impl Recorded {
    /// Of the session that began last, once all are over.
    pub(crate) fn newest(world: &World) -> Self {
        world.gateway.until_no_lease(PATIENCE);
        let recordings = world.gateway.recordings();
        let newest = recordings.iter().max_by_key(|r| r["start"].as_str().map(str::to_owned)).unwrap();
        let id = newest["session"].as_str().unwrap().to_owned();
        assert_eq!(newest["state"], "complete");
        world.gateway.cli(&["recording", "verify", &id]).ok();
        Self { events: world.gateway.events(&id), id }
    }

    pub(crate) fn all(&self, kind: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["event"] == kind).collect()
    }

    /// The number of the only statement with this text, or the last.
    #[track_caller]
    pub(crate) fn statement(&self, text: &str) -> &Value {
        let found = self.all("statement").into_iter().rfind(|event| event["text"].as_str().unwrap().contains(text));
        found.unwrap_or_else(|| panic!("no statement {text:?} in {:#?}", self.events))
    }

    /// Executions of this statement.
    fn executions(&self, statement: &Value) -> Vec<&Value> {
        self.all("executed").into_iter().filter(|event| event["statement"] == statement["number"]).collect()
    }

    /// What answered this.
    #[track_caller]
    fn answers(&self, asked: &Value) -> Vec<&Value> {
        assert!(asked["number"].is_u64(), "{asked}");
        let answers = |event: &&Value| event["of"] == asked["number"];
        self.events.iter().filter(answers).collect()
    }

    /// The tags of what answered this, each with its rows; an error as its SQLSTATE.
    #[track_caller]
    fn outcome(&self, asked: &Value) -> Vec<String> {
        let told = |event: &Value| match event["event"].as_str() {
            Some("completed") => format!("{} {}", event["tag"].as_str().unwrap(), event["rows"]),
            _ => event["code"].as_str().unwrap().to_owned(),
        };
        self.answers(asked).into_iter().map(told).collect()
    }

    /// The typed parameters of all Binds, as kind and text.
    fn typed(&self) -> Vec<(String, String)> {
        let parameters =
            self.all("bound").into_iter().flat_map(|bound| bound["parameters"].as_array().unwrap().clone());
        let field = |parameter: &Value, field: &str| parameter["typed"][field].as_str().map(str::to_owned);
        parameters.filter_map(|p| Some((field(&p, "kind")?, field(&p, "text")?))).collect()
    }
}

/// Types with values that their texts do not tell at once.
const VALUES: &[(&str, &[&str])] = &[
    ("bool", &["true", "false"]),
    ("int2", &["-32768", "7"]),
    ("int4", &["-2147483648"]),
    ("int8", &["9223372036854775807"]),
    ("float4", &["0.1", "1e-20", "NaN", "-Infinity", "-0", "123456", "1234567", "0.0001", "0.00001234"]),
    ("float8", &["0.1", "123456.789", "Infinity", "1e15", "123456789012345.6", "-1.5e300"]),
    (
        "numeric",
        &["0", "-0.00010", "123456789012345678901234567890.000100", "NaN", "10000", "1e40", "0.00000000000000001"],
    ),
    ("text", &["", "it's a \"snowman\": ☃\nnext line\\"]),
    ("varchar", &["v"]),
    ("bpchar", &["padded  "]),
    ("name", &["a_name"]),
    ("\"char\"", &["x"]),
    ("bytea", &["\\x00ff5c"]),
    ("uuid", &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    ("date", &["2026-11-22", "0001-01-01", "9999-12-31", "infinity", "-infinity"]),
    ("time", &["00:00:00", "23:59:59.999999", "24:00:00"]),
    ("timetz", &["12:00:00.5+05:30", "01:02:03-08", "00:00:00+00"]),
    ("timestamp", &["2026-11-22 06:00:00.12", "1970-01-01 00:00:00", "infinity"]),
    ("timestamptz", &["2026-11-22 06:00:00+02", "1999-12-31 23:59:59.999999+00"]),
    (
        "interval",
        &["1 year 2 mons -3 days 04:05:06.789", "0", "-1 year", "1 mon -00:00:00.5", "-13 mons", "-1 year 2 days"],
    ),
    ("json", &["{\"a\": [1, 2]}"]),
    ("jsonb", &["{\"b\": null}"]),
    ("oid", &["4294967295"]),
    ("xid", &["7"]),
    ("pg_lsn", &["16/B374D848"]),
    ("tid", &["(1,2)"]),
    ("inet", &["10.0.0.1", "10.0.0.1/24", "2001:db8::1/64", "::ffff:1.2.3.4"]),
    ("cidr", &["10.0.0.0/8", "2001:db8::/32"]),
    ("macaddr", &["08:00:2b:01:02:03"]),
    ("macaddr8", &["08:00:2b:01:02:03:04:05"]),
    ("bit(3)", &["101"]),
    ("varbit", &["", "1010101011"]),
    ("xml", &["<a/>"]),
    ("int4[]", &["{1,NULL,-3}", "{}", "{{1,2},{3,4},{5,6}}", "[0:1]={1,2}", "[2:2][-1:0]={{7,8}}"]),
    ("text[]", &["{a,\"b c\",\"\",\"NULL\",NULL,\"quote\\\"d\",\"back\\\\slash\",\"{x}\"}"]),
    ("timestamptz[]", &["{\"2026-11-22 06:00:00+00\",infinity}"]),
    ("numeric[]", &["{1.50,-2}"]),
    ("bytea[]", &["{\"\\\\x00ff\"}"]),
    ("inet[]", &["{10.0.0.1}"]),
];

#[test]
fn binary_parameters_are_recorded_as_the_target_itself_writes_them() {
    let world = world();
    let mut written = Vec::new();
    let recorded = session(&world, async |client: &mut Client| {
        client.batch_execute("set timezone = 'UTC'; set bytea_output = 'hex'").await.unwrap();
        for (kind, literals) in VALUES {
            for literal in *literals {
                let quoted = literal.replace('\'', "''");
                let row = client.query_one(&format!("select '{quoted}'::{kind}"), &[]).await.unwrap();
                let raw: Binary = row.get(0);
                // By the type's own output function, where a cast to text may do something else.
                let row = client.query_one(&format!("select format('%s', $1::{kind})"), &[&raw]).await;
                written.push(row.unwrap().get::<_, String>(0));
            }
        }
    });
    let typed: Vec<String> = recorded.typed().into_iter().map(|(_, text)| text).collect();
    assert_eq!(typed, written);
    assert_eq!(recorded.all("bound").len(), recorded.all("executed").len());
}

#[test]
fn prepared_statements_portals_and_pipelines_are_told_with_what_answered_them() {
    let world = world();
    let recorded = session(&world, async |client: &mut Client| {
        let by_id = client.prepare("select name from items where id <= $1 order by id").await.unwrap();
        let failing = client.prepare("select 10 / $1::int").await.unwrap();
        // Three at once: the second fails, and the others do not.
        let (a, b, c) = (3_i32, 0_i32, 5_i32);
        let (a, b, c): (One<'_>, One<'_>, One<'_>) = ([&a], [&b], [&c]);
        let three = future::join3(client.query(&by_id, &a), client.query(&failing, &b), client.query(&by_id, &c)).await;
        assert_eq!((three.0.unwrap().len(), three.2.unwrap().len()), (3, 5));
        assert_eq!(three.1.unwrap_err().code(), Some(&SqlState::DIVISION_BY_ZERO));
        let transaction = client.transaction().await.unwrap();
        let portal = transaction.bind(&by_id, &[&7_i32]).await.unwrap();
        let rows = [transaction.query_portal(&portal, 5).await, transaction.query_portal(&portal, 5).await];
        assert_eq!(rows.map(|rows| rows.unwrap().len()), [5, 2]);
        transaction.rollback().await.unwrap();
    });
    let executed = recorded.executions(recorded.statement("where id <= $1"));
    let outcomes: Vec<_> = executed.iter().map(|asked| recorded.outcome(asked)).collect();
    assert_eq!(outcomes, [["SELECT 3 3"], ["SELECT 5 5"], ["(portal suspended) 5"], ["SELECT 2 2"]]);
    assert_eq!((&executed[2]["rows"], &executed[2]["portal"]), (&5.into(), &executed[3]["portal"]));
    assert!(executed[2]["portal"].as_str().is_some_and(|portal| !portal.is_empty()));
    // The planner divides already, so it is Bind that fails.
    let failing = &recorded.statement("select 10 / $1")["number"];
    let failed = recorded.all("bound").into_iter().find(|bound| &bound["statement"] == failing).unwrap();
    assert_eq!(recorded.outcome(failed), ["22012"]);
    for answer in recorded.all("completed").into_iter().chain(recorded.all("reported")) {
        assert!(answer["of"].is_u64() && answer["took"].is_f64(), "{answer}");
    }
    let typed = recorded.typed();
    let values: Vec<_> = typed.iter().filter(|(kind, _)| kind == "int4").map(|(_, text)| text.as_str()).collect();
    assert_eq!(values, ["3", "0", "5", "7"]);
    let rolled_back = serde_json::json!("rolled-back");
    assert!(recorded.all("transaction").iter().any(|event| event["ended"] == rolled_back), "{recorded:#?}");
}

#[test]
fn each_copy_has_its_bytes_and_digest_and_each_transaction_its_end() {
    let world = world();
    let rows = |ids: std::ops::Range<u32>| ids.map(|id| format!("{id}\tname of {id}\n")).collect::<String>();
    let (first, second) = (rows(1000..3000), rows(3000..3010));
    let recorded = session(&world, async |client: &mut Client| {
        for rows in [&first, &second] {
            let transaction = client.transaction().await.unwrap();
            let sink = transaction.copy_in::<_, Bytes>("copy items from stdin").await.unwrap();
            let mut sink = std::pin::pin!(sink);
            sink.send(Bytes::from(rows.clone())).await.unwrap();
            assert_eq!(sink.finish().await.unwrap(), rows.lines().count() as u64);
            transaction.commit().await.unwrap();
        }
        let sink = client.copy_in::<_, Bytes>("copy items from stdin").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        sink.send(Bytes::from_static(b"no number\tx\n")).await.unwrap();
        assert_eq!(sink.finish().await.unwrap_err().code(), Some(&SqlState::INVALID_TEXT_REPRESENTATION));
        let copied =
            client.copy_out("copy (select * from items where id >= 3000 order by id) to stdout").await.unwrap();
        let copied: Vec<Bytes> = copied.try_collect().await.unwrap();
        assert_eq!(copied.concat(), second.as_bytes());
        client.batch_execute("select 'the session goes on'").await.unwrap();
    });
    let of = |stream: &str, bytes: &str| {
        let sum: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        (stream.to_owned(), bytes.len() as u64, sum)
    };
    let totals = recorded.all("total").into_iter().filter(|t| t["stream"].as_str().unwrap().starts_with("copy"));
    let totals: Vec<_> = totals
        .map(|t| {
            (
                t["stream"].as_str().unwrap().to_owned(),
                t["total"].as_u64().unwrap(),
                t["sha256"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    assert_eq!(
        totals,
        [of("copy-in", &first), of("copy-in", &second), of("copy-in", "no number\tx\n"), of("copy-out", &second)]
    );
    let ended: Vec<_> = recorded.all("transaction").iter().filter_map(|event| event["ended"].as_str()).collect();
    assert_eq!(ended, ["committed", "committed"]);
    let copies = recorded.all("executed");
    let outcomes: Vec<_> = copies.iter().map(|asked| recorded.outcome(asked)).collect();
    assert_eq!(outcomes, [["COPY 2000 0"], ["COPY 10 0"], ["22P02"], ["COPY 10 0"]]);
    let last = recorded.statement("the session goes on");
    assert_eq!(recorded.outcome(last), ["SELECT 1 1"], "also after a COPY that failed");
}

#[test]
fn notices_notifications_and_cancellations_are_told() {
    let world = world();
    let mut psql = world.psql_start("alice");
    psql.send("listen jobs;\ndo $$ begin raise warning 'look out'; end $$;\nnotify jobs, 'done';\n\\echo listening\n");
    psql.until_stdout("listening", PATIENCE);
    psql.send("select pg_sleep(500);\n");
    let sleeps = "select count(*) from pg_stat_activity where query = 'select pg_sleep(500);' and state = 'active'";
    wait_until(PATIENCE, "it sleeps", || (world.pg().ask("shop", sleeps) == "1").then_some(()));
    psql.signal(Signal::INT);
    psql.until_stderr("57014", PATIENCE);
    psql.finish(PATIENCE);
    let recorded = Recorded::newest(&world);
    let notified = recorded.all("notified");
    assert_eq!((&notified[0]["name"], &notified[0]["payload"]), (&"jobs".into(), &"done".into()));
    let warned = recorded.statement("raise warning");
    assert_eq!(recorded.outcome(warned), ["01000", "DO 0"]);
    assert_eq!(recorded.all("cancelled").len(), 1);
    assert_eq!(recorded.outcome(recorded.statement("pg_sleep(500)")), ["57014"]);
}

#[test]
fn psql_that_describes_watches_and_sends_several_statements_at_once_is_told_whole() {
    let world = world();
    let mut psql = world.psql_start("alice");
    psql.send("select 1 \\; select 2 \\; select nonsense;\nselect 3 as three \\gdesc\nselect id from items where id = 4 \\g\n");
    psql.send("select 'again' \\watch 0.01\n");
    psql.until_stdout("again\nagain\n", PATIENCE);
    psql.signal(Signal::INT);
    psql.finish(PATIENCE);
    let recorded = Recorded::newest(&world);
    assert_eq!(recorded.outcome(recorded.statement("select nonsense")), ["SELECT 1 1", "SELECT 1 1", "42703"]);
    // \gdesc only prepares, and then asks for the names of the types by another query.
    let described = recorded.all("statement").into_iter().find(|event| event["text"] == "select 3 as three ").unwrap();
    assert_eq!((&described["prepared"], recorded.executions(described).len()), (&"".into(), 0));
    let watched = recorded.all("statement").into_iter().filter(|event| event["text"] == "select 'again' ");
    assert!(watched.count() >= 2);
}

#[test]
fn what_psql_binds_is_told_with_its_answer() {
    if version() < 16 {
        return; // its psql binds nothing
    }
    let world = world();
    let mut psql = world.psql_start("alice");
    psql.send("select $1::int + $2::int as sum \\bind 40 2 \\g\n");
    assert_eq!(psql.finish(PATIENCE).ok().out(), "42");
    let recorded = Recorded::newest(&world);
    let executed = recorded.executions(recorded.statement("select $1::int + $2::int"));
    assert_eq!(recorded.outcome(executed[0]), ["SELECT 1 1"]);
    assert_eq!(recorded.all("bound")[0]["parameters"], serde_json::json!([{ "text": "40" }, { "text": "2" }]));
}

#[test]
fn pgbench_is_told_execution_by_execution_in_each_of_its_modes() {
    let world = world();
    world
        .pg()
        .psql("shop", "create table counted (n int not null); grant select, insert on counted to shop_writer")
        .ok();
    let script = world.dir().join("bench.sql");
    std::fs::write(
        &script,
        "\\set n 7\nbegin;\ninsert into counted values (:n);\nselect count(*) from counted;\nend;\n",
    )
    .unwrap();
    let password = world.password("alice", "orders");
    for mode in ["simple", "extended", "prepared"] {
        let mut pgbench = Command::new(binary("pgbench"));
        pgbench.args(["-n", "-M", mode, "-t", "20", "-f"]).arg(&script).arg(world.conninfo("alice", "orders/shop"));
        run(
            {
                pgbench.env("PGPASSWORD", &password);
                pgbench
            },
            PATIENCE,
        )
        .ok();
        let recorded = Recorded::newest(&world);
        let inserted: Vec<_> = recorded.all("completed").into_iter().filter(|c| c["tag"] == "INSERT 0 1").collect();
        let committed = recorded.all("transaction").into_iter().filter(|t| t["ended"] == "committed").count();
        assert_eq!((inserted.len(), committed), (20, 20), "{mode}");
        let asked = recorded.events.iter().filter(|e| e["event"] == "statement" || e["event"] == "executed");
        let all_answered =
            asked.filter(|a| mode == "simple" || a["event"] == "executed").all(|a| recorded.outcome(a).len() == 1);
        assert!(all_answered, "{mode}: {recorded:#?}");
        if mode != "simple" {
            let sevens = recorded.all("bound").iter().filter(|b| b["parameters"][0]["text"] == "7").count();
            assert_eq!(sevens, 20, "{mode}");
        }
    }
    assert_eq!(world.pg().ask("shop", "select count(*), sum(n) from counted"), "60|420");
}

#[test]
fn a_session_exported_as_sql_does_the_same_again() {
    let world = world();
    let table = "create table notes (id int, note text, seal bytea, at timestamptz, tags text[], price numeric)";
    world.pg().psql("shop", &format!("{table}; grant select, insert, update on notes to shop_writer")).ok();
    let recorded = session(&world, async |client: &mut Client| {
        let insert = client.prepare(
            "insert into notes values ($1, $2, $3, now() - now() + '2026-11-22'::timestamptz, $4, $5::text::numeric)",
        );
        let insert = insert.await.unwrap();
        let tags = vec!["a", "b c", "'; drop table notes; --"];
        for (id, note) in [(1, "plain"), (2, "it's ☃\n\\! echo PWNED"), (3, "")] {
            let seal: &[u8] = &[0, 255, b'\\'];
            client.execute(&insert, &[&id, &note, &seal, &tags, &"12.50"]).await.unwrap();
        }
        client.execute("update notes set note = $2 where id = $1", &[&3, &None::<&str>]).await.unwrap();
        client.query("select $1::int / 0", &[&1]).await.unwrap_err();
        client.batch_execute("begin; update notes set id = 99; rollback").await.unwrap();
    });
    let notes = "select * from notes order by id";
    let before = world.pg().ask("shop", notes);
    let sql = world.gateway.export(&recorded.id, "sql");
    world.pg().psql("shop", "truncate notes").ok();
    let script = world.dir().join("again.sql");
    std::fs::write(&script, &sql).unwrap();
    let mut psql = Command::new(binary("psql"));
    psql.args(["-X", "-q", "-h"]).arg(world.pg().socket()).args([
        "-p",
        &world.pg().port().to_string(),
        "-U",
        "postgres",
    ]);
    psql.args(["-d", "shop", "-f"]).arg(&script);
    let again = run(psql, PATIENCE).ok();
    assert_eq!(again.err().matches("ERROR").count(), 0, "what failed is not run again:\n{}\n{sql}", again.err());
    assert!(!again.out().contains("PWNED") && !again.err().contains("PWNED"), "{sql}");
    assert_eq!(world.pg().ask("shop", notes), before, "{sql}");
    assert!(sql.contains(" after ") && sql.contains("-- ERROR 22012: division by zero after "), "{sql}");
    let text = world.gateway.export(&recorded.id, "text");
    assert!(text.contains("$1 = '2'::int4, $2 = 'it''s ☃\\n\\! echo PWNED'::text, $3 = '\\x00ff5c'::bytea"), "{text}");
    let identity = world.gateway.identity();
    let play = ["recording", "play", "--speed", "1000", "--identity", identity.to_str().unwrap(), &recorded.id];
    let played = world.gateway.cli(&play).ok().out();
    assert!(played.contains(" ms | INSERT 0 1 (0 rows sent)") && played.contains("rolled back"), "{played}");
}

#[test]
fn a_client_that_asks_far_ahead_is_told_in_order_and_followed_again_once_it_was_answered() {
    const MANY: u64 = 40_000;
    let world = world();
    // The target answers nothing until this lock is free.
    let mut lock = world.pg().psql_start("shop");
    lock.send("select pg_advisory_lock(7);\n\\echo locked\n");
    lock.until_stdout("locked", PATIENCE);
    let mut raw = Raw::through_the_gate(&world, &world.password("alice", "orders"));
    raw.send(&raw::query("select pg_advisory_lock(7)"));
    raw.send(&raw::query("").repeat(MANY as usize));
    let live = world.gateway.recordings()[0]["session"].as_str().unwrap().to_owned();
    let asked = || world.gateway.export(&live, "jsonl").matches("\"event\":\"statement\"").count() as u64 == MANY + 1;
    wait_until(PATIENCE, "all is asked", || asked().then_some(()));
    drop(lock);
    for _ in 0..=MANY {
        raw.until(b'Z');
    }
    raw.ask(&raw::query("select 'the last'"));
    raw.send(raw::TERMINATE);
    drop(raw);
    let recorded = Recorded::newest(&world);
    let results = recorded.all("completed");
    assert_eq!(results.len() as u64, MANY + 2);
    let told: Vec<_> = results.iter().filter_map(|result| result["of"].as_u64()).collect();
    let (last, followed) = told.split_last().unwrap();
    assert_eq!((*last, followed), (MANY + 2, (1..=followed.len() as u64).collect::<Vec<_>>().as_slice()));
    assert!(followed.len() < MANY as usize, "more were asked than are followed");
    let said: Vec<_> = recorded.all("said").iter().map(|said| said["text"].as_str().unwrap()).collect();
    assert!(matches!(said[..], [said] if said.contains("wait for their answers")), "{said:?}");
    assert_eq!(recorded.outcome(recorded.statement("select 'the last'")), ["SELECT 1 1"]);
}
