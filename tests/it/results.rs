//! Rows of results in recordings, and values that must never be in one.

use crate::sql::{Recorded, session};
use serde_json::{Value, json};
use tidegate_tests::{
    World,
    config::READWRITE,
    running::run,
    world::{PATIENCE, Plan},
};

/// A world whose alice may write in `orders`, with these lines in that entitlement and in `[recording]`.
fn world(entitlement: &str, recording: &str) -> World {
    let table = "\\connect shop\ncreate table people (id int, name text, password text, card_number text);\n\
                 grant all on people to shop_writer;\n";
    let world = Plan::new()
        .only_postgres()
        .postgres_sql(table)
        .change("leftovers = \"quarantine\"", &format!("leftovers = \"quarantine\"\n{entitlement}"))
        .change("recipients = [", &format!("{recording}\nrecipients = ["))
        .start();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    assert!(READWRITE.contains("leftovers = \"quarantine\""));
    world
}

fn rows(recorded: &Recorded, statement: &str) -> Vec<Value> {
    let number = &recorded.statement(statement)["number"];
    let executed: Vec<&Value> = recorded
        .all("executed")
        .into_iter()
        .filter(|event| event["statement"] == *number)
        .map(|event| &event["number"])
        .chain([number])
        .collect();
    recorded
        .all("row")
        .into_iter()
        .filter(|row| executed.contains(&&row["of"]))
        .map(|row| row["values"].clone())
        .collect()
}

fn columns(recorded: &Recorded) -> Vec<Value> {
    recorded.all("columns").into_iter().map(|event| event["columns"].clone()).collect()
}

#[test]
fn the_first_rows_of_each_result_are_kept_with_their_columns_and_binary_ones_are_read() {
    let world = world("results = \"head\"", "");
    let recorded = session(&world, async |client| {
        client
            .simple_query("select n, 'x' || n as t, null as z from generate_series(1, 500) n; select 7 as seven")
            .await
            .unwrap();
        let prepared =
            client.prepare("select id, name, now() - now() as span from items where id <= $1").await.unwrap();
        for most in [2, 3] {
            assert_eq!(client.query(&prepared, &[&most]).await.unwrap().len(), usize::try_from(most).unwrap());
        }
        client.simple_query("delete from people where id = 1").await.unwrap();
    });
    let simple = rows(&recorded, "generate_series");
    assert_eq!(simple.len(), 101, "a hundred of one result, and one of the other: {simple:?}");
    assert_eq!(simple[0], json!([{ "text": "1" }, { "text": "x1" }, "null"]));
    assert_eq!(simple[100], json!([{ "text": "7" }]));
    assert!(recorded.all("completed").iter().any(|done| done["rows"] == 500), "all are counted");
    let prepared = rows(&recorded, "from items where id");
    let first = json!([{ "text": "1" }, { "text": "item 1" }, { "text": "00:00:00" }]);
    assert_eq!((prepared.len(), &prepared[0]), (5, &first));
    assert!(
        columns(&recorded).contains(&json!([
            { "name": "id", "type": "int4" }, { "name": "name", "type": "text" }, { "name": "span", "type": "interval" }
        ])),
        "{:?}",
        columns(&recorded)
    );
    assert_eq!(columns(&recorded).len(), 4, "one for each result that has rows");
    let text = world.gateway.export(&recorded.id, "text");
    assert!(text.contains("columns: id, name, span") && text.contains("row: '1', 'item 1', '00:00:00'"), "{text}");
    let identity = world.gateway.identity();
    let found = world.gateway.cli(&["recording", "search", "--identity", identity.to_str().unwrap(), "item 3"]).ok();
    assert!(found.out().contains("item 3"), "{}", found.out());
}

#[test]
fn without_being_told_no_row_is_kept_and_all_are_where_it_is_said() {
    let sql = "select n from generate_series(1, 3000) n";
    let none = world("", "");
    let recorded = session(&none, async |client| {
        client.simple_query(sql).await.unwrap();
    });
    assert_eq!((recorded.all("row").len(), recorded.all("columns").len()), (0, 0));
    // The entitlement has its way against [recording].
    let all = world("results = \"all\"", "results = \"none\"");
    all.gateway.cli(&["check"]).ok().shows("all rows of results are recorded");
    let recorded = session(&all, async |client| {
        client.simple_query(sql).await.unwrap();
        client.simple_query("select repeat('long', 100000) as long").await.unwrap();
    });
    assert_eq!(rows(&recorded, "generate_series").len(), 3000);
    let long = rows(&recorded, "repeat")[0].to_string();
    assert!(long.len() > 200_000 && long.contains("bytes more"), "{}", long.len());
}

#[test]
fn values_of_what_is_masked_are_in_no_recording_and_the_session_has_them() {
    let world = world("results = \"all\"\nmask = [\"card_*\"]", "mask = [\"password\"]");
    world.gateway.cli(&["check"]).ok().shows("values of card_*, password are not written down");
    let insert = "insert into people (id, name, password, card_number) values";
    let recorded = session(&world, async |client| {
        client.simple_query(&format!("{insert} (1, 'ann', 's3cret-literal', $$s3cret-dollars$$)")).await.unwrap();
        let prepared = client.prepare(&format!("{insert} ($1, $2, $3, $4)")).await.unwrap();
        client.execute(&prepared, &[&2, &"bob", &"s3cret-bound", &"s3cret-card"]).await.unwrap();
        // By the columns' names, whatever the statement says.
        let all = client.query("select * from people order by id", &[]).await.unwrap();
        assert_eq!(all[1].get::<_, String>("password"), "s3cret-bound");
        client.simple_query("select * from people").await.unwrap();
        // Under another name.
        client.simple_query("select id, password as harmless from people").await.unwrap();
        client.query("select upper(card_number) from people", &[]).await.unwrap();
        client.simple_query("select id, name from people").await.unwrap();
        // As whole rows, beside a star, and by what SQL itself has given a name.
        client.simple_query("select people from people; select row_to_json(people) from people").await.unwrap();
        client.simple_query("select *, password as p from people").await.unwrap();
        client
            .simple_query("begin; declare d cursor for select password as p from people; fetch all from d; commit")
            .await
            .unwrap();
        client.simple_query("begin; declare e cursor for select password as p from people").await.unwrap();
        client.simple_query("fetch all from e").await.unwrap();
        client.simple_query("commit; prepare q(text) as select id from people where password = $1").await.unwrap();
        client.simple_query("execute q('s3cret-executed')").await.unwrap();
        client.simple_query("listen told; select pg_notify('told', password) from people").await.unwrap();
        // In what the server says about it.
        client.simple_query("select password::int from people").await.unwrap_err();
        client.simple_query("select 's3cret-cast'::int as password").await.unwrap_err();
        client.simple_query("do $$begin raise notice 'password s3cret-notice'; end$$").await.unwrap();
        // A cursor has its own name in SQL, and its rows have their columns'.
        client.batch_execute("begin; declare c cursor for table people; fetch all from c; commit").await.unwrap();
        let long = format!("select 's3cret-long' as password, '{}s3cret-end'", "x".repeat(600_000));
        client.simple_query(&long).await.unwrap();
    });
    let all: String = recorded.events.iter().map(|event| format!("{event}\n")).collect();
    let leaks: Vec<&str> = all.lines().filter(|line| line.to_lowercase().contains("s3cret")).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
    assert_eq!(recorded.statement("insert into people (id")["masked"], true);
    assert_eq!(
        recorded.statement("insert into people (id")["text"].as_str().unwrap().matches('$').count(),
        4,
        "of Parse"
    );
    let bound = recorded.all("bound").into_iter().find(|bound| bound["parameters"].as_array().unwrap().len() == 4);
    assert_eq!(bound.unwrap()["parameters"], json!(["masked", "masked", "masked", "masked"]));
    assert_eq!(
        rows(&recorded, "select * from people order")[1],
        json!([{ "text": "2" }, { "text": "bob" }, "masked", "masked"])
    );
    assert_eq!(rows(&recorded, "as harmless")[0], json!(["masked", "masked"]));
    assert_eq!(rows(&recorded, "select id, name from people")[0], json!([{ "text": "1" }, { "text": "ann" }]));
    let sql = world.gateway.export(&recorded.id, "sql");
    assert!(sql.contains("its values are masked") && !sql.to_lowercase().contains("s3cret"), "{sql}");

    // COPY, of which the columns are not told, is counted.
    let password = world.password("alice", "orders");
    let copy = "\\copy people from stdin\n3\teve\ts3cret-in\ts3cret-in\n\\.\ncopy people to stdout;\n";
    let file = world.gateway.dir().join("copy.sql");
    std::fs::write(&file, copy).unwrap();
    let conninfo = world.conninfo("alice", "orders/shop");
    run(world.psql_command(&conninfo, &password, &["-f", file.to_str().unwrap()]), PATIENCE).ok().shows("s3cret-in");
    let copied = Recorded::newest(&world);
    let all: String = copied.events.iter().map(|event| format!("{event}\n")).collect();
    assert!(!all.contains("s3cret") && all.contains("copy-in"), "{all}");
}
