//! sqlx: a pool, prepared statements, transactions, COPY, LISTEN, and errors by their SQLSTATE.

use super::{Databases, GATE};
use futures::{TryStreamExt as _, future::try_join_all};
use sqlx::{
    Connection as _, Row as _,
    postgres::{PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions, PgSslMode},
};
use tidegate_tests::driver::patiently;

/// Who and where, as the others have it from their environment.
fn options(databases: &Databases) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host(GATE)
        .port(databases.world.gateway.postgres().port())
        .username("alice@orders")
        .password(&databases.password)
        .database("shop")
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert(databases.world.client_file("ca.pem"))
}

fn run(work: impl Future<Output = sqlx::Result<()>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(patiently("sqlx", work)).unwrap();
}

/// What the server, or the gate in its place, said.
fn code<T: std::fmt::Debug>(result: sqlx::Result<T>) -> (String, String) {
    match result.unwrap_err() {
        sqlx::Error::Database(told) => (told.code().unwrap_or_default().into_owned(), told.message().to_owned()),
        other => panic!("no word of the server's: {other}"),
    }
}

async fn pooled(pool: &PgPool) -> sqlx::Result<()> {
    let doubled = |n: i32| sqlx::query_scalar::<_, i32>("select $1 * 2").bind(n).fetch_one(pool);
    assert_eq!(try_join_all((0..60).map(doubled)).await?, (0..60).map(|n| 2 * n).collect::<Vec<_>>());
    let text = sqlx::query("select $1::text, $2::bytea, $3::int[], $4::float8, $5::text");
    let row = text.bind("it's ☃").bind(vec![0_u8, 255]).bind(vec![1, 2]).bind(0.5).bind(None::<&str>);
    let row = row.fetch_one(pool).await?;
    assert_eq!((row.get::<&str, _>(0), row.get::<&[u8], _>(1)), ("it's ☃", &[0, 255][..]));
    assert_eq!(
        (row.get::<Vec<i32>, _>(2), row.get::<f64, _>(3), row.get::<Option<&str>, _>(4)),
        (vec![1, 2], 0.5, None)
    );
    let mut rows = sqlx::query_scalar::<_, i32>("select id from items order by id").fetch(pool);
    let mut seen = 0;
    while let Some(id) = rows.try_next().await? {
        seen += 1;
        assert_eq!(id, seen);
    }
    assert_eq!(seen, 100);
    Ok(())
}

async fn transactions(pool: &PgPool) -> sqlx::Result<()> {
    let count = || sqlx::query_scalar::<_, i64>("select count(*) from items where id >= 1000").fetch_one(pool);
    let insert = |id: i32| sqlx::query("insert into items values ($1, 'x')").bind(id);
    let mut undone = pool.begin().await?;
    insert(1000).execute(&mut *undone).await?;
    undone.rollback().await?;
    drop(pool.begin().await?); // as `?` does it: rolled back before its connection serves another
    let mut done = pool.begin().await?;
    insert(1001).execute(&mut *done).await?;
    let mut inner = done.begin().await?; // a savepoint
    insert(1002).execute(&mut *inner).await?;
    let failed = sqlx::query("select $1 / 0").bind(1).execute(&mut *inner).await;
    assert_eq!(code(failed), ("22012".to_owned(), "division by zero".to_owned()));
    inner.rollback().await?;
    done.commit().await?;
    assert_eq!(count().await?, 1);
    assert_eq!(sqlx::query("delete from items where id >= $1").bind(1000).execute(pool).await?.rows_affected(), 1);
    Ok(())
}

async fn copies_and_listens(pool: &PgPool) -> sqlx::Result<()> {
    let mut connection = pool.acquire().await?;
    let mut copy = connection.copy_in_raw("copy items from stdin (format csv)").await?;
    for id in 2000..3000 {
        copy.send(format!("{id},\"copied, {id}\"\n").into_bytes()).await?;
    }
    assert_eq!(copy.finish().await?, 1000);
    let copy = connection.copy_in_raw("copy items from stdin").await?;
    copy.abort("changed my mind").await?;
    let out = connection.copy_out_raw("copy (select * from items where id >= 2000) to stdout").await?;
    let lines: Vec<_> = out.try_collect().await?;
    assert_eq!(lines.concat().iter().filter(|byte| **byte == b'\n').count(), 1000);
    assert_eq!(
        sqlx::query("delete from items where id >= 2000").execute(&mut *connection).await?.rows_affected(),
        1000
    );
    drop(connection);
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen("jobs").await?;
    sqlx::query("select pg_notify('jobs', $1)").bind("done").execute(pool).await?;
    let heard = listener.recv().await?;
    assert_eq!((heard.channel(), heard.payload()), ("jobs", "done"));
    Ok(())
}

#[test]
fn sqlx_works_with_its_pool() {
    let databases = Databases::start();
    run(async {
        let pool = PgPoolOptions::new().min_connections(2).max_connections(4).connect_with(options(&databases)).await?;
        pooled(&pool).await?;
        transactions(&pool).await?;
        copies_and_listens(&pool).await?;
        pool.close().await;
        Ok(())
    });
    databases.assert_nothing_is_left();
    let opened = databases.world.gateway.ledger().count("session.opened");
    assert!((2..=4).contains(&opened), "{opened} sessions for a pool of 2 to 4");
}

#[test]
fn sqlx_hears_by_its_sqlstate_that_the_grant_has_no_room_for_another() {
    let databases = Databases::with_room(2);
    run(async {
        let pool = PgPoolOptions::new().max_connections(2).connect_with(options(&databases)).await?;
        let (first, second) = (pool.acquire().await?, pool.acquire().await?);
        let (state, message) = code(PgConnection::connect_with(&options(&databases)).await);
        assert_eq!(state, "53300", "{message}");
        assert!(message.contains("2"), "it names the bound: {message}");
        first.close().await?;
        second.close().await
    });
    databases.assert_nothing_is_left();
}
