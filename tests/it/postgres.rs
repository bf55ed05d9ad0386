//! `psql` and drivers through the gate, on a real PostgreSQL.

use crate::wire;
use futures::StreamExt as _;
use std::{
    future::poll_fn,
    io::{Read, Write},
    process::Command,
};
use tidegate_tests::{
    Running, World,
    config::PUBLIC_NAME,
    daemon::Signal,
    postgres::{binary, version},
    running::run,
    wait_until,
    world::{PATIENCE, Plan},
};
use tokio_postgres::{
    AsyncMessage,
    binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream},
    types::Type,
};
use tokio_postgres_rustls::MakeRustlsConnect;

fn world() -> World {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    world
}

#[test]
fn psql_reads_what_its_role_may_read_and_nothing_else() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    assert_eq!(world.psql("alice", "select count(*) from items").ok().out(), "100");
    world.psql("alice", "delete from items").exited(1).says("42501").says("permission denied");
    world.psql("alice", "select * from no_such_table").exited(1).says("42P01");
    assert_eq!(world.pg().ask("shop", "select count(*) from items"), "100");
}

#[test]
fn several_results_notices_and_errors_come_through_in_one_session() {
    let world = world();
    let mut psql = world.psql_start("alice");
    psql.send("select 1 as a \\; select 2 as b;\n");
    psql.send(
        "do $$ begin raise notice 'look out'; end $$;\nselect 1/0;\nbegin;\nselect nonsense;\nselect 'x';\nrollback;\n",
    );
    psql.send("select repeat('y', 3000000);\nselect 'end';\n");
    let output = psql.finish(PATIENCE).ok();
    assert!(output.err().contains("look out") && output.err().contains("22012") && output.err().contains("25P02"));
    // Before 15, psql shows only the last of several results.
    let results = if version() < 15 { "2\n" } else { "1\n2\n" };
    assert!(output.out().starts_with(results) && output.out().ends_with("\nend"));
    assert!(output.stdout.len() > 3_000_000);
}

#[test]
fn copy_goes_in_and_out_unchanged() {
    let world = world();
    let rows: String = (1000..21_000).map(|n| format!("{n}\tname of {n}\n")).collect();
    let mut psql = world.psql_start("alice");
    psql.send(format!("copy items from stdin;\n{rows}\\.\nselect 'rows: ' || count(*) from items;\n"));
    psql.send("copy (select * from items where id >= 1000 order by id) to stdout;\n");
    let output = psql.finish(PATIENCE).ok();
    assert!(output.out().contains("rows: 20100"), "{}", output.err());
    assert!(output.out().ends_with(rows.trim_end()), "COPY TO brings back what COPY FROM took");
}

#[test]
fn a_failed_copy_leaves_the_session_usable() {
    let world = world();
    let mut psql = world.psql_start("alice");
    psql.send("copy items from stdin;\nnot a number\tx\n\\.\nselect 'still here';\n");
    let output = psql.finish(PATIENCE);
    assert!(output.err().contains("22P02"), "{}", output.err());
    assert!(output.out().contains("still here"));
}

#[test]
fn ctrl_c_in_psql_cancels_the_statement_and_the_session_goes_on() {
    let world = world();
    let mut psql = world.psql_start("alice");
    psql.send("select 'ready';\nselect pg_sleep(500);\nselect 'after';\n");
    psql.until_stdout("ready", PATIENCE);
    wait_until(PATIENCE, "the statement runs", || {
        (world.pg().ask("shop", "select count(*) from pg_stat_activity where query like '%pg_sleep(500)%' and pid <> pg_backend_pid() and state = 'active'") == "1")
            .then_some(())
    });
    psql.signal(Signal::INT);
    psql.until_stderr("57014", PATIENCE);
    // psql that reads from a pipe gives up its input after SIGINT, or goes on: the backend must be free either way.
    let code = psql.finish(PATIENCE).code;
    assert!(matches!(code, Some(0..=3)), "{code:?}");
    let events = events(&world);
    assert!(events.contains("cancelled"), "{events}");
}

/// All events of the newest recording.
fn events(world: &World) -> String {
    let recordings = world.gateway.recordings();
    let newest = recordings.iter().max_by_key(|r| r["start"].as_str().map(str::to_owned)).unwrap();
    let events = world.gateway.events(newest["session"].as_str().unwrap());
    events.iter().map(|e| format!("{e}\n")).collect()
}

#[test]
fn a_forged_cancel_request_does_nothing() {
    let world = world();
    let mut psql = world.psql_start("alice");
    psql.send("select pg_backend_pid();\nselect pg_sleep(2);\nselect 'undisturbed';\n");
    psql.until_stdout("\n", PATIENCE);
    let pid: i32 = psql.stdout().trim().parse().unwrap();
    for (process, key) in [(pid, 0_i32), (pid, 1), (0, 0), (1, 12345), (-1, -1)] {
        let body = [80_877_102_i32.to_be_bytes(), process.to_be_bytes(), key.to_be_bytes()].concat();
        let mut plain = wire::connect(&world);
        plain.write_all(&wire::sized(&body)).unwrap();
        assert_eq!(wire::read_to_close(&mut plain), b"");
        let mut tls = wire::tls(&world);
        tls.write_all(&wire::sized(&body)).unwrap();
        assert_eq!(wire::read_to_close(&mut tls), b"");
    }
    let output = psql.finish(PATIENCE).ok();
    assert!(output.out().ends_with("undisturbed"), "{}", output.err());
}

#[test]
fn sessions_at_once_each_have_a_role_of_their_own() {
    let world = world();
    let password = world.password("alice", "orders");
    let conninfo = world.conninfo("alice", "orders/shop");
    let mut all: Vec<Running> = (0..5).map(|_| Running::start(world.psql_command(&conninfo, &password, &[]))).collect();
    let mut roles = std::collections::BTreeSet::new();
    for psql in &mut all {
        psql.send("select session_user;\n");
        psql.until_stdout("\n", PATIENCE);
        roles.insert(psql.stdout().trim().to_owned());
    }
    assert_eq!(roles.len(), 5, "{roles:?}");
    assert!(roles.iter().all(|r| r.starts_with("tg_alice_") && r.len() <= 30), "{roles:?}");
    for psql in all {
        psql.finish(PATIENCE).ok();
    }
    world.gateway.until_no_lease(PATIENCE);
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
}

#[test]
fn more_connections_than_the_entitlement_allows_are_refused() {
    let world = Plan::new().only_postgres().change("max_connections = 10", "max_connections = 2").start();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let password = world.password("alice", "orders");
    let conninfo = world.conninfo("alice", "orders/shop");
    let mut open: Vec<Running> =
        (0..2).map(|_| Running::start(world.psql_command(&conninfo, &password, &[]))).collect();
    for psql in &mut open {
        psql.send("select 'in';\n");
        psql.until_stdout("in", PATIENCE);
    }
    run(world.psql_command(&conninfo, &password, &["-c", "select 1"]), PATIENCE).exited(2).says("which is the limit");
    open.pop().unwrap().finish(PATIENCE).ok();
    world.gateway.until_ledger("session.closed", 1, PATIENCE);
    run(world.psql_command(&conninfo, &password, &["-c", "select 1"]), PATIENCE).ok();
}

#[test]
fn the_password_binds_its_channel_to_the_gates_certificate() {
    let world = world();
    let password = world.password("alice", "orders");
    let bound = world.conninfo("alice", "orders/shop") + " channel_binding=require";
    assert_eq!(run(world.psql_command(&bound, &password, &["-c", "select 1"]), PATIENCE).ok().out(), "1");
}

#[test]
fn without_tls_nothing_is_read_and_the_client_is_told() {
    let world = world();
    let password = world.password("alice", "orders");
    let plain = world.conninfo("alice", "orders/shop").replace("verify-full", "disable");
    run(world.psql_command(&plain, &password, &["-c", "select 1"]), PATIENCE).exited(2).says("TLS");
    world.gateway.until_ledger("door.refused", 1, PATIENCE);
}

#[test]
fn tls_may_begin_at_once_if_it_names_the_protocol() {
    let world = world();
    let start = wire::startup(&[(b"user", b"alice"), (b"database", b"orders/shop")]);
    let mut right = wire::direct_tls(&world, &[b"postgresql"]);
    right.write_all(&start).unwrap();
    let mut answer = [0];
    right.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"R", "it asks for the password");
    for (alpn, says) in [(&[][..], "ALPN"), (&[&b"http/1.1"[..]], "")] {
        let mut wrong = wire::direct_tls(&world, alpn);
        let _ = wrong.write_all(&start);
        let answer = String::from_utf8_lossy(&wire::read_to_close(&mut wrong)).into_owned();
        assert!(!answer.starts_with('R') && answer.contains(says), "{answer}");
    }
}

#[test]
fn protocol_3_2_is_spoken_with_its_longer_cancel_keys() {
    let world = world();
    let mut stream = wire::tls(&world);
    let mut start = wire::startup(&[(b"user", b"alice"), (b"database", b"orders/shop"), (b"_pq_.shiny", b"1")]);
    start[4..8].copy_from_slice(&[0, 3, 0x27, 0x0f]); // 3.9999, as PostgreSQL 19's libpq may ask to see who breaks
    stream.write_all(&start).unwrap();
    let mut answer = [0; 13];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[0], b'v');
    assert_eq!(answer[5..13], [0, 3, 0, 2, 0, 0, 0, 1], "3.2, and one option that is not known");
}

#[test]
fn the_target_may_stand_in_the_user_name() {
    let world = world();
    let password = world.password("alice", "orders");
    let conninfo = world.conninfo("alice@orders", "shop");
    let command = world.psql_command(&conninfo, &password, &["-c", "select current_database()"]);
    assert_eq!(run(command, PATIENCE).ok().out(), "shop");
    let named = world.conninfo("alice~readwrite@orders", "shop");
    run(world.psql_command(&named, &password, &["-c", "select 1"]), PATIENCE).ok();
}

#[test]
fn a_uri_with_the_target_in_its_path_works() {
    let world = world();
    let password = world.password("alice", "orders");
    let uri = format!(
        "postgresql://alice@{PUBLIC_NAME}:{}/orders/shop?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={}",
        world.gateway.postgres().port(),
        world.client_file("ca.pem").display()
    );
    run(world.psql_command(&uri, &password, &["-c", "select 1"]), PATIENCE).ok();
}

/// What tokio-postgres needs to come in as alice.
fn driver(world: &World) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host(PUBLIC_NAME).hostaddr("127.0.0.1".parse().unwrap()).port(world.gateway.postgres().port());
    config.user("alice").password(world.password("alice", "orders")).dbname("orders/shop");
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    config
}

#[test]
fn a_driver_prepares_binds_copies_and_pipelines() {
    let world = world();
    let config = driver(&world);
    let tls = MakeRustlsConnect::new(wire::tls_config(&world));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let (client, connection) = config.connect(tls).await.unwrap();
        let connection = tokio::spawn(connection);
        let statement = client.prepare("select name from items where id = $1").await.unwrap();
        for id in [1, 50, 100] {
            let row = client.query_one(&statement, &[&id]).await.unwrap();
            assert_eq!(row.get::<_, String>(0), format!("item {id}"));
        }
        let (first, second, third) = (1, 2, 3);
        let (first, second, third) =
            ([&first as &(dyn tokio_postgres::types::ToSql + Sync)], [&second as _], [&third as _]);
        let three = tokio::join!(
            client.query_one(&statement, &first),
            client.query_one(&statement, &second),
            client.query_one(&statement, &third)
        );
        assert_eq!(three.2.unwrap().get::<_, String>(0), "item 3");
        assert!(three.0.is_ok() && three.1.is_ok());
        let error = client.query("select 1 / $1::int", &[&0]).await.unwrap_err();
        assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::DIVISION_BY_ZERO));
        assert_eq!(client.query_one("select null::text", &[]).await.unwrap().get::<_, Option<String>>(0), None);
        let changed = client.execute("update items set name = $2 where id = $1", &[&7, &"a secret name"]).await;
        assert_eq!(changed.unwrap(), 1);
        drop(client);
        connection.await.unwrap().unwrap();
    });
    world.gateway.until_no_lease(PATIENCE);
    let events = events(&world);
    assert!(events.contains("select name from items where id = $1"), "{events}");
    assert!(events.contains("a secret name"), "bound parameters are in the recording:\n{events}");
    assert!(events.contains("UPDATE 1"), "{events}");
}

#[test]
fn a_driver_resumes_portals_copies_in_binary_listens_and_cancels() {
    let world = world();
    let (config, tls) = (driver(&world), MakeRustlsConnect::new(wire::tls_config(&world)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut client, mut connection) = config.connect(tls.clone()).await.unwrap();
        let (news, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let connection = tokio::spawn(async move {
            while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(notification) = message.unwrap() {
                    news.send(notification.payload().to_owned()).unwrap();
                }
            }
        });
        let transaction = client.transaction().await.unwrap();
        let portal = transaction.bind("select id from items order by id", &[]).await.unwrap();
        let mut portions = Vec::new();
        while let portion @ 1.. = transaction.query_portal(&portal, 40).await.unwrap().len() {
            portions.push(portion);
        }
        assert_eq!(portions, [40, 40, 20]);
        drop(transaction);

        client.batch_execute("create temp table copied (id int8, name text); listen news").await.unwrap();
        let types = [Type::INT8, Type::TEXT];
        let sink = client.copy_in("copy copied from stdin (format binary)").await.unwrap();
        let writer = BinaryCopyInWriter::new(sink, &types);
        let mut writer = std::pin::pin!(writer);
        for id in 0..5000i64 {
            writer.as_mut().write(&[&id, &format!("number {id}")]).await.unwrap();
        }
        assert_eq!(writer.finish().await.unwrap(), 5000);
        let stream = client.copy_out("copy copied to stdout (format binary)").await.unwrap();
        let rows: Vec<_> = BinaryCopyOutStream::new(stream, &types).collect().await;
        assert_eq!(rows.len(), 5000);
        assert_eq!(rows.last().unwrap().as_ref().unwrap().get::<String>(1), "number 4999");

        let (other, running) = config.connect(tls.clone()).await.unwrap();
        tokio::spawn(running);
        other.batch_execute("notify news, 'to whom it may concern'").await.unwrap();
        assert_eq!(heard.recv().await.unwrap(), "to whom it may concern");

        let pid: i32 = client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
        let sleep = client.query("select pg_sleep(600)", &[]);
        let cancel = async {
            // What waits where is for superusers to see, so it is asked past the gate.
            let asleep = format!("select count(*) from pg_stat_activity where pid = {pid} and wait_event = 'PgSleep'");
            while world.pg().ask("postgres", &asleep) == "0" {
                other.batch_execute("").await.unwrap(); // meanwhile the others go on
            }
            client.cancel_token().cancel_query(tls).await.unwrap();
        };
        let (slept, ()) = tokio::join!(sleep, cancel);
        assert_eq!(slept.unwrap_err().code(), Some(&tokio_postgres::error::SqlState::QUERY_CANCELED));
        drop(client);
        connection.await.unwrap();
    });
}

/// Statements for pgbench, in a pipeline.
const PIPELINE: &str = "\\startpipeline
select name from items where id = :client_id + 1;
update items set name = name where id = :client_id + 1;
select 1 / (:client_id + 1);
\\endpipeline
";

#[test]
fn pgbench_runs_in_each_query_mode_and_in_a_pipeline() {
    let world = world();
    let password = world.password("alice", "orders");
    let (plain, piped) = (world.dir().join("plain.sql"), world.dir().join("piped.sql"));
    std::fs::write(&piped, PIPELINE).unwrap();
    std::fs::write(&plain, PIPELINE.replace("\\startpipeline\n", "begin;\n").replace("\\endpipeline", "commit;"))
        .unwrap();
    for (mode, script) in
        [("simple", &plain), ("extended", &plain), ("prepared", &plain), ("extended", &piped), ("prepared", &piped)]
    {
        let psql = world.psql_command(&world.conninfo("alice", "orders/shop"), &password, &[]);
        let mut pgbench = Command::new(binary("pgbench"));
        pgbench.envs(psql.get_envs().filter_map(|(name, value)| Some((name, value?))));
        pgbench.args(["-n", "-c", "3", "-j", "2", "-t", "15", "-M", mode, "-f"]).arg(script);
        pgbench.arg(world.conninfo("alice", "orders/shop"));
        let output = run(pgbench, PATIENCE).ok();
        assert!(output.out().contains("actually processed: 45/45"), "{mode}: {}{}", output.out(), output.err());
    }
    world.gateway.until_no_lease(PATIENCE);
}
