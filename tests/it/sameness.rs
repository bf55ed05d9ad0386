//! PostgreSQL through the gate is PostgreSQL: whatever messages a client sends, it hears through the gate what it hears
//! from the server itself, message by message.
//!
//! Sequences of messages are made up, right ones and such as make the server complain, and sent through the gate and
//! directly to the same server, there as a role that may exactly the same; cut anywhere, all at once or one by one. What
//! must differ is evened out: the OID and schema of a temporary table, and who sent a notification.

use crate::raw::{
    self, COPY_DONE, COPY_FAIL, FLUSH, Raw, Reply, SYNC, bind, call, close, copy_data, describe, execute, parse, query,
};
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use tidegate_tests::World;

/// What each script finds: tables of its own, and nothing of the one before.
const CLEAN: [&str; 2] = [
    "create temp table t (id int primary key, name text)",
    "insert into t select n, 'name ' || n from generate_series(1, 9) n",
];

const STATEMENTS: [&str; 40] = [
    "select 1",
    "",
    ";;",
    "select 1; select 2, 'two'; select 3",
    "select 1; select 1/0; select 'never'",
    "nonsense",
    "begin",
    "commit",
    "rollback",
    "savepoint a",
    "rollback to a",
    "begin; insert into t values (100, null); select count(*) from t; rollback",
    "select * from t order by id",
    "select id, name from t where id = 3",
    "insert into t select n, 'more' from generate_series(20, 25) n returning id",
    "update t set name = upper(name) where id < 4",
    "delete from t where id = 9",
    "insert into t values (1, 'twice')",
    "select null::text, 1.5::float8, '\\x00ff'::bytea, true, array[1, 2], '{\"a\": 1}'::jsonb",
    "select repeat('wide ', 9000), generate_series(1, 3)",
    "select generate_series(1, 3000)",
    "do $$ begin raise notice 'a notice'; raise warning 'a warning' using errcode = '01234'; end $$",
    "do $$ begin raise exception 'an error' using errcode = 'P7777', detail = 'd', hint = 'h'; end $$",
    "copy t from stdin",
    "copy t from stdin (format csv, header)",
    "copy t from stdin (format binary)",
    "copy t to stdout",
    "copy (select * from t order by id) to stdout (format csv, header)",
    "copy (select id from t order by id) to stdout (format binary)",
    "listen news; notify news, 'to myself'",
    "notify news",
    "set application_name = 'changed'; set timezone = 'Asia/Tokyo'",
    "set local datestyle = 'German'",
    "set no_such_setting = 1",
    "declare c cursor for select * from t order by id",
    "fetch 2 from c; fetch 3 from c",
    "prepare s as select $1::int * 2; execute s(21); deallocate s",
    "select * from items where id < 3",
    "delete from items where no_such_column",
    "vacuum t",
];

const PREPARED: [&str; 12] = [
    "select $1::int + 1, $2::text",
    "select * from t where id <= $1::int order by id",
    "select generate_series(1, $1::int)",
    "insert into t (id, name) values ($1, $2)",
    "copy t from stdin",
    "copy t to stdout",
    "begin",
    "rollback",
    "select 1; select 2",
    "",
    "select * from t where name = $1 for update",
    "set application_name = 'prepared'",
];

const NAMES: [&str; 3] = ["", "a", "b"];

fn values() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    let value = prop_oneof![
        Just(Some(b"7".to_vec())),
        Just(Some(b"x".to_vec())),
        Just(Some(vec![0, 0, 0, 5])),
        Just(None),
        Just(Some(vec![b'v'; 20_000])),
        Just(Some(b"bad \xff text".to_vec())),
    ];
    prop::collection::vec(value, 0..4)
}

/// One message, or a few that belong together.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let name = || select(&NAMES[..]);
    let formats = || prop::collection::vec(select(vec![0i16, 1]), 0..3);
    let types = prop::collection::vec(select(vec![0u32, 23, 25]), 0..3);
    let whole = (select(&PREPARED[..]), select(vec![0, 1, 4])).prop_map(|(sql, rows)| {
        let (first, second) = (Some(&b"7"[..]), Some(&b"seven"[..]));
        let values = [first, second];
        let values = &values[..sql.matches('$').count().min(2)];
        [parse("", sql, &[]), bind("", "", &[], values, &[]), describe(b'P', ""), execute("", rows), SYNC.to_vec()]
            .concat()
    });
    prop_oneof![
        6 => select(&STATEMENTS[..]).prop_map(query),
        4 => whole,
        3 => (name(), select(&PREPARED[..]), types).prop_map(|(name, sql, types)| parse(name, sql, &types)),
        4 => (name(), name(), formats(), values(), formats()).prop_map(|(portal, statement, formats, values, results)| {
            let values: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
            bind(portal, statement, &formats, &values, &results)
        }),
        2 => (select(vec![b'S', b'P', b'?']), name()).prop_map(|(what, name)| describe(what, name)),
        4 => (name(), select(vec![0, 1, 2, -1])).prop_map(|(portal, rows)| execute(portal, rows)),
        1 => (select(vec![b'S', b'P']), name()).prop_map(|(what, name)| close(what, name)),
        3 => Just(SYNC.to_vec()),
        1 => Just(FLUSH.to_vec()),
        2 => select(vec![&b"40\tforty\n"[..], b"x\n", b"41,forty-one\n", b"\\.\n", b"", b"half a r"]).prop_map(copy_data),
        1 => Just(COPY_DONE.to_vec()),
        1 => Just(COPY_FAIL.to_vec()),
        // abs(int4), and a function that does not exist.
        1 => (select(vec![1397u32, 1]), values()).prop_map(|(function, values)| {
            call(function, &values.iter().map(Option::as_deref).collect::<Vec<_>>())
        }),
        // A body that does not follow its grammar.
        1 => (select(b"QPBDCE".to_vec()), prop::collection::vec(any::<u8>(), 0..12)).prop_map(|(tag, body)| {
            [&[tag][..], &crate::wire::sized(&body)].concat()
        }),
    ]
}

/// How a script is handed over.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// In one piece.
    Whole,
    /// Each message by itself.
    Messages,
    /// In pieces of so many bytes.
    Pieces(usize),
}

/// Ends whatever state a script left the session in, and says so.
fn end() -> Vec<u8> {
    [SYNC, COPY_FAIL, SYNC, &query("rollback; select 'the end'")].concat()
}

/// A client, who starts anew where a script ended the session.
struct Player<'a> {
    world: &'a World,
    /// Through the gate, with this password; or directly.
    password: Option<&'a str>,
    session: Option<Raw>,
}

impl Player<'_> {
    /// What it hears, up to the end that [`end`] announces or the end of the session.
    fn play(&mut self, script: &[Vec<u8>], cut: Cut) -> Vec<Reply> {
        let mut session = self.session.take().unwrap_or_else(|| match self.password {
            Some(password) => Raw::through_the_gate(self.world, password),
            None => Raw::directly(self.world),
        });
        for sql in CLEAN {
            assert_eq!(raw::tags(&session.ask(&query(sql))), "CZ", "{sql}");
        }
        let all = [script.concat(), end()].concat();
        match cut {
            Cut::Whole => session.send(&all),
            Cut::Messages => session.send_in_pieces(script.iter().chain([&end()]).map(Vec::as_slice)),
            Cut::Pieces(size) => session.send_in_pieces(all.chunks(size)),
        }
        let mut heard = Vec::new();
        let mut ended = false;
        while let Some(reply) = session.next() {
            ended |= reply.tag == b'D' && reply.body.ends_with(b"the end");
            let ready = reply.tag == b'Z';
            heard.push(evened_out(reply));
            if ended && ready {
                // At once, since it may listen to what the other player notifies.
                session.ask(&query("discard all"));
                self.session = Some(session);
                break;
            }
        }
        heard
    }
}

/// Without what is another's in each session.
fn evened_out(mut reply: Reply) -> Reply {
    match reply.tag {
        // NotificationResponse: the process that sent it.
        b'A' => reply.body[..4].fill(0),
        // RowDescription: each column's table.
        b'T' => {
            let mut at = 2;
            while at < reply.body.len() {
                at += reply.body[at..].iter().position(|byte| *byte == 0).expect("a name ends") + 1;
                reply.body[at..at + 4].fill(0);
                at += 18;
            }
        }
        // ErrorResponse and NoticeResponse: the schema of temporary tables, of which each session has its own.
        b'E' | b'N' => {
            const OWN: &[u8] = b"pg_temp_";
            if let Some(at) = reply.body.windows(OWN.len()).position(|text| text == OWN) {
                let digits = at + OWN.len();
                let count = reply.body[digits..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                reply.body.drain(digits..digits + count);
            }
        }
        _ => {}
    }
    reply
}

fn setting(name: &str, or: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or)
}

#[test]
fn whatever_messages_a_client_sends_the_replies_are_those_of_the_server_itself() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    raw::equal(&world);
    let password = world.password("alice", "orders");
    let mut seed = [3; 32];
    seed[..4].copy_from_slice(&setting("TIDEGATE_TEST_SEED", 1).to_le_bytes());
    let config = Config { cases: setting("TIDEGATE_TEST_CASES", 150), max_shrink_iters: 300, ..Config::default() };
    let config = Config { failure_persistence: None, ..config };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let cut = prop_oneof![Just(Cut::Whole), Just(Cut::Messages), (1..40usize).prop_map(Cut::Pieces)];
    let through = std::cell::RefCell::new(Player { world: &world, password: Some(&password), session: None });
    let direct = std::cell::RefCell::new(Player { world: &world, password: None, session: None });
    let result = runner.run(&(prop::collection::vec(messages(), 1..25), cut), |(script, cut)| {
        let expected = direct.borrow_mut().play(&script, Cut::Whole);
        let heard = through.borrow_mut().play(&script, cut);
        let differs = expected.iter().zip(&heard).position(|(one, other)| one != other);
        let at = differs.unwrap_or(expected.len().min(heard.len()));
        prop_assert!(
            expected == heard,
            "{cut:?} of {}\nreply {at} directly: {:?}\nthrough the gate: {:?}",
            script
                .iter()
                .map(|message| format!("\n  {}", message[..message.len().min(200)].escape_ascii()))
                .collect::<String>(),
            &expected[at..expected.len().min(at + 3)],
            &heard[at..heard.len().min(at + 3)],
        );
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_greeting_through_the_gate_is_the_servers_own() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    raw::equal(&world);
    let through = Raw::through_the_gate(&world, &world.password("alice", "orders"));
    let direct = Raw::directly(&world);
    let own = |session: &Raw| {
        let mut replies: Vec<Reply> = session.greeting.iter().filter(|reply| reply.tag != b'R').cloned().collect();
        for reply in &mut replies {
            match reply.tag {
                b'K' => reply.body.fill(0),
                b'S' if reply.text().starts_with("session_authorization=") => reply.body.clear(),
                _ => {}
            }
        }
        replies.sort_by_key(|reply| (reply.tag, reply.body.clone())); // the order of ParameterStatus means nothing
        replies
    };
    assert_eq!(own(&through), own(&direct));
    assert_ne!(through.key(), direct.key());
    assert_ne!(&through.key()[..4], &direct.key()[..4]);
}
