//! The protocol as drivers speak it: pipelines, portals, binary values, COPY, notifications, function calls, sizes.
//!
//! The client is our own and speaks message by message ([`raw`]), where psql would hide what happens, or do it never.

use crate::raw::{self, COPY_DONE, COPY_FAIL, FLUSH, Raw, SYNC, bind, close, describe, execute, parse, query, tags};
use std::fs;
use tidegate_tests::{
    World,
    running::run,
    world::{PATIENCE, Plan},
};

const INT4: u32 = 23;
const TEXT: u32 = 25;

fn world() -> World {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    world
}

fn session(world: &World) -> Raw {
    Raw::through_the_gate(world, &world.password("alice", "orders"))
}

#[test]
fn a_pipeline_is_answered_in_order_and_an_error_skips_to_the_next_sync() {
    let world = world();
    let mut session = session(&world);
    let mut sent = parse("add", "select $1::int + 1", &[]);
    for number in 0..200 {
        sent.extend(bind("", "add", &[], &[Some(number.to_string().as_bytes())], &[]));
        sent.extend(execute("", 0));
    }
    let replies = session.ask(&[&sent, SYNC].concat());
    assert_eq!(tags(&replies), format!("1{}Z", "2DC".repeat(200)));
    let sums: Vec<_> = replies.iter().filter(|r| r.tag == b'D').map(|r| r.columns().remove(0).unwrap()).collect();
    assert_eq!(sums, (1..=200).map(|sum| sum.to_string().into_bytes()).collect::<Vec<_>>());

    let one = |value: &[u8]| [bind("", "add", &[], &[Some(value)], &[]), execute("", 0)].concat();
    let (good, bad) = (one(b"1"), one(b"x"));
    let piped = [&good, &bad, &good, SYNC, &good, SYNC, &query("select 'behind it'")].concat();
    session.send(&piped);
    let answers = [session.until(b'Z'), session.until(b'Z'), session.until(b'Z')];
    assert_eq!(answers.each_ref().map(|replies| tags(replies)), ["2DCEZ", "2DCZ", "TDCZ"]);
    assert_eq!(answers[0][3].field(b'C'), "22P02");
}

#[test]
fn portals_give_their_rows_in_portions_and_several_stay_open() {
    let world = world();
    let mut session = session(&world);
    let begin = [query("begin"), parse("", "select generate_series(1, 5)", &[])].concat();
    session.send(&[&begin, &bind("p", "", &[], &[], &[]), &bind("q", "", &[], &[], &[1]), SYNC].concat());
    assert_eq!((tags(&session.until(b'Z')), tags(&session.until(b'Z'))), ("CZ".to_owned(), "122Z".to_owned()));
    let first = session.ask(&[execute("p", 2), execute("q", 4), execute("p", 2), SYNC.to_vec()].concat());
    assert_eq!(tags(&first), "DDsDDDDsDDsZ");
    let rows: Vec<_> = first.iter().filter(|r| r.tag == b'D').map(|r| r.columns().remove(0).unwrap()).collect();
    assert_eq!(rows[4..], [vec![0, 0, 0, 3], vec![0, 0, 0, 4], b"3".to_vec(), b"4".to_vec()], "q is binary, p text");
    let rest =
        session.ask(&[execute("p", 0), execute("q", 9), close(b'P', "p"), execute("p", 0), SYNC.to_vec()].concat());
    assert_eq!(tags(&rest), "DCDC3EZ");
    assert_eq!(rest[5].field(b'C'), "34000", "a closed portal is gone: {rest:?}");
}

#[test]
fn what_comes_before_a_good_bye_is_still_answered() {
    let world = world();
    let mut session = session(&world);
    let sent = [&query("select pg_sleep(6)")[..], &query("select 'late'"), raw::TERMINATE].concat();
    session.send(&sent);
    let replies = session.rest();
    assert_eq!(tags(&replies), "TDCZTDCZ", "{replies:?}");
    world.gateway.until_no_lease(PATIENCE);
}

#[test]
fn parameters_and_results_in_binary_come_and_go_unchanged() {
    let world = world();
    let mut session = session(&world);
    let every_byte: Vec<u8> = (0..=255).collect();
    let sql = "select $1::bytea, length($1), $2::int, $3::text, $4::float8";
    session.send(&[&parse("b", sql, &[]), &describe(b'S', "b")[..], FLUSH].concat());
    assert_eq!(tags(&session.until(b'T')), "1tT", "Flush is enough for an answer");
    let values = [Some(&every_byte[..]), Some(&[0xff, 0xff, 0xff, 0xfe]), None, Some(b"0.5")];
    let sent = [bind("", "b", &[1, 1, 0, 0], &values, &[1, 0, 1, 0, 1]), execute("", 0), SYNC.to_vec()].concat();
    let replies = session.ask(&sent);
    let half = 0.5f64.to_be_bytes().to_vec();
    assert_eq!(
        replies[1].columns(),
        [Some(every_byte), Some(b"256".to_vec()), Some(vec![0xff, 0xff, 0xff, 0xfe]), None, Some(half)]
    );
}

#[test]
fn copy_carries_text_csv_and_binary_both_ways_in_both_query_protocols() {
    let world = world();
    let mut session = session(&world);
    session.ask(&query("create temp table copied (id int, name bytea)"));
    let signature = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    let binary = [&signature[..], &[0, 2, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0, 3, 0, 1, 255], &[255, 255]].concat();
    for (format, data) in [("text", &b"7\t\\\\x0001ff\n"[..]), ("csv", b"7,\\x0001ff\n"), ("binary", &binary)] {
        let [copy_in, copy_out] =
            ["from stdin", "to stdout"].map(|way| format!("copy copied {way} with (format {format})"));
        for extended in [false, true] {
            let ask = |sql: &str| match extended {
                false => query(sql),
                true => [parse("", sql, &[]), bind("", "", &[], &[], &[]), execute("", 0), FLUSH.to_vec()].concat(),
            };
            session.ask(&query("truncate copied"));
            session.send(&ask(&copy_in));
            assert!(tags(&session.until(b'G')).ends_with('G'));
            session.send(&data.iter().flat_map(|byte| raw::copy_data(&[*byte])).collect::<Vec<u8>>());
            let done = session.ask(&if extended { [COPY_DONE, SYNC].concat() } else { COPY_DONE.to_vec() });
            assert_eq!((tags(&done).as_str(), done[0].text().as_str()), ("CZ", "COPY 1"), "{format}");
            let out = session.ask(&if extended { [&ask(&copy_out), SYNC].concat() } else { ask(&copy_out) });
            let came: Vec<u8> = out.iter().filter(|r| r.tag == b'd').flat_map(|r| r.body.clone()).collect();
            assert_eq!(came.escape_ascii().to_string(), data.escape_ascii().to_string(), "{format}: {out:?}");
        }
    }
}

#[test]
fn a_copy_that_fails_on_either_side_leaves_the_session_usable() {
    let world = world();
    let mut session = session(&world);
    session.ask(&query("create temp table copied (id int primary key)"));
    let copy = "copy copied from stdin";
    session.send(&query(copy));
    session.until(b'G');
    let failed = session.ask(&[&raw::copy_data(b"1\n"), COPY_FAIL].concat());
    assert_eq!((tags(&failed).as_str(), failed[0].field(b'C').as_str()), ("EZ", "57014"));
    // The server fails while the client still sends, and goes on sending.
    session.send(&[query(copy), raw::copy_data(b"x\n")].concat());
    session.until(b'E');
    let refused = session.ask(&[raw::copy_data(b"2\n"), COPY_DONE.to_vec()].concat());
    assert_eq!(tags(&refused), "Z", "what came behind the error is ignored");
    let extended = [parse("", copy, &[]), bind("", "", &[], &[], &[]), execute("", 0)].concat();
    session.send(&[&extended, FLUSH].concat());
    session.until(b'G');
    let failed = session.ask(&[COPY_FAIL, &query("select 'never'"), SYNC].concat());
    assert_eq!(tags(&failed), "EZ");
    let stopped = session.ask(&query("copy (select 1 / (3 - g) from generate_series(1, 5) g) to stdout"));
    assert_eq!(tags(&stopped), "HddEZ");
    assert_eq!(session.first_column("select count(*)::text from copied"), ["0"]);
}

#[test]
fn a_notification_arrives_while_the_session_is_idle() {
    let world = world();
    let (mut listener, mut speaker) = (session(&world), session(&world));
    listener.ask(&query("listen news"));
    let pid = speaker.first_column("select pg_backend_pid()::text").remove(0).parse::<u32>().unwrap();
    speaker.ask(&query("notify news, 'high water'"));
    let heard = listener.until(b'A').remove(0); // it has asked for nothing
    assert_eq!(heard.body, [&pid.to_be_bytes()[..], b"news\0high water\0"].concat());
    listener.ask(&query("unlisten *"));
}

#[test]
fn functions_are_called_without_a_statement_and_psql_moves_large_objects_so() {
    let world = world();
    let mut session = session(&world);
    let oid = session.first_column("select 'int4pl(int, int)'::regprocedure::oid::text").remove(0).parse().unwrap();
    let sum = session.ask(&raw::call(oid, &[Some(&40u32.to_be_bytes()), Some(&2u32.to_be_bytes())]));
    assert_eq!((tags(&sum).as_str(), &sum[0].body[..]), ("VZ", &[0, 0, 0, 4, 0, 0, 0, 42][..]));
    let null = session.ask(&raw::call(oid, &[None, Some(&2u32.to_be_bytes())]));
    assert_eq!((tags(&null).as_str(), &null[0].body[..]), ("VZ", &[255; 4][..]), "a strict function of a null");
    assert_eq!(tags(&session.ask(&raw::call(1, &[]))), "EZ");

    let content: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let (there, back) = (world.dir().join("there"), world.dir().join("back"));
    fs::write(&there, &content).unwrap();
    let mut psql = world.psql_start("alice");
    psql.send(format!("\\lo_import {}\n\\lo_export :LASTOID {}\n", there.display(), back.display()));
    psql.send("\\lo_unlink :LASTOID\n");
    psql.finish(PATIENCE).ok();
    assert!(fs::read(back).unwrap() == content, "the large object came back changed");
}

#[test]
fn a_statement_may_have_65535_parameters() {
    let world = world();
    let mut session = session(&world);
    let values: Vec<[u8; 4]> = (1..=65_535u32).map(u32::to_be_bytes).collect();
    let values: Vec<_> = values.iter().map(|value| Some(&value[..])).collect();
    let sent = [
        parse("", "select $1 + $65535", &[INT4; 65_535]),
        describe(b'S', ""),
        bind("", "", &[1], &values, &[]),
        execute("", 0),
        SYNC.to_vec(),
    ];
    let replies = session.ask(&sent.concat());
    assert_eq!(tags(&replies), "1tT2DCZ");
    assert_eq!(replies[1].body.len(), 2 + 4 * 65_535);
    assert_eq!(replies[4].columns(), [Some(b"65536".to_vec())]);
}

/// The most resident memory that the gateway may ever have had, in KiB, however large a message is.
const MEMORY: u64 = 64 * 1024;

#[test]
fn heavy_rows_and_parameters_of_110_mib_pass_through_little_memory() {
    let mut world = Plan::new().only_postgres().postgresql_conf("work_mem = '4MB'\n").start();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    let mut session = session(&world);
    let size = 110 << 20;
    let row = session.ask(&query(&format!("select repeat('tide', {})", size / 4)));
    assert_eq!((tags(&row).as_str(), row[1].body.len()), ("TDCZ", 2 + 4 + size));
    assert!(row[1].body[6..].chunks(4).all(|word| word == b"tide"), "a row of 110 MiB came changed");
    drop(row);
    let value = b"gate".repeat(size / 4);
    let sent = [
        parse("", "select length($1), $1 = repeat('gate', length($1) / 4)", &[TEXT]),
        bind("", "", &[], &[Some(&value)], &[]),
        execute("", 0),
        SYNC.to_vec(),
    ];
    let told = session.ask(&sent.concat());
    assert_eq!(told[2].columns(), [Some(size.to_string().into_bytes()), Some(b"t".to_vec())]);
    world.gateway.assert_alive();
    // Without the pages of the program's own file, which grows with each feature.
    let peak = world.gateway.peak_of_its_own();
    eprintln!("a row and a parameter of {} MiB: {peak} KiB in memory at the peak", size >> 20);
    assert!(peak < MEMORY, "the gateway had {peak} KiB in memory at its peak");
}

#[test]
fn frames_cut_at_every_byte_are_put_together_again() {
    let world = world();
    let mut session = session(&world);
    let sent = [
        parse("", "select $1::text, repeat('x', 20000)", &[]),
        bind("", "", &[], &[Some(b"whole")], &[]),
        describe(b'P', ""),
        execute("", 0),
        SYNC.to_vec(),
    ];
    let whole = session.ask(&sent.concat());
    assert_eq!(tags(&whole), "12TDCZ");
    for size in [1, 2, 3, 5, 7, 11] {
        session.send_in_pieces(sent.concat().chunks(size));
        assert_eq!(session.until(b'Z'), whole, "in pieces of {size}");
    }
}

#[test]
fn what_breaks_the_protocol_ends_the_session_with_a_word_and_never_reaches_the_target() {
    let world = Plan::new().only_postgres().postgresql_conf("log_statement = 'all'\n").start();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    let password = world.password("alice", "orders");
    let leak = b"leaked to the target\0";
    let with_length = |tag: u8, length: u32| [&[tag][..], &length.to_be_bytes(), leak].concat();
    let whole = |tag: u8| with_length(tag, 4 + u32::try_from(leak.len()).unwrap());
    for (what, sent, words) in [
        ("a length of 3", with_length(b'Q', 3), "claims a length of 3"),
        ("a length of 0", with_length(b'P', 0), "claims a length of 0"),
        ("a length of 2 to the 31 less 1", with_length(b'Q', 0x7fff_ffff), "claims a length of 2147483647"),
        ("a Sync of 20,000 bytes", with_length(b'S', 20_000), "claims a length of 20000"),
        ("no such type", whole(b'!'), "type 0x21 does not belong here"),
        ("a reply", whole(b'Z'), "does not belong here"),
        ("a password after the log-in", whole(b'p'), "after authentication"),
        ("a start-up packet after the log-in", crate::wire::startup(&[(b"user", b"leaked")]), "does not belong here"),
    ] {
        let mut session = Raw::through_the_gate(&world, &password);
        session.send(&[query("select 'before it'"), sent].concat());
        let replies = session.rest();
        assert!(tags(&replies).ends_with('E'), "{what}: {replies:?}");
        let last = replies.last().unwrap();
        assert_eq!((last.field(b'S').as_str(), last.field(b'C').as_str()), ("FATAL", "08P01"), "{what}");
        assert!(last.field(b'M').contains(words), "{what}: {last:?}");
    }
    world.gateway.until_no_lease(PATIENCE);
    let log = world.pg().log();
    assert!(log.contains("before it") && !log.contains("leaked"), "{log}");
    assert!(!log.contains("08P01") && !log.contains("invalid message"), "{log}");
    run(world.gateway.command(&["ledger", "verify"]), PATIENCE).ok();
}
