//! The decoders against peers that play by the rules, badly, or not at all.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use super::{scp::Direction, *};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

const INIT: &[u8] = &[0, 0, 0, 5, 1, 0, 0, 0, 3];
const VERSION: &[u8] = &[0, 0, 0, 5, 2, 0, 0, 0, 3];

fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn packet(kind: u8, id: u32, fields: &[&[u8]]) -> Vec<u8> {
    string(&[&[kind], id.to_be_bytes().as_slice(), &fields.concat()].concat())
}

const NO_ATTRIBUTES: [u8; 4] = [0; 4];

fn open(id: u32, path: &str, flags: u32) -> Vec<u8> {
    packet(3, id, &[&string(path.as_bytes()), &flags.to_be_bytes(), &NO_ATTRIBUTES])
}
fn close(id: u32, handle: &[u8]) -> Vec<u8> {
    packet(4, id, &[&string(handle)])
}
fn read(id: u32, handle: &[u8], offset: u64, length: u32) -> Vec<u8> {
    packet(5, id, &[&string(handle), &offset.to_be_bytes(), &length.to_be_bytes()])
}
fn write(id: u32, handle: &[u8], offset: u64, data: &[u8]) -> Vec<u8> {
    packet(6, id, &[&string(handle), &offset.to_be_bytes(), &string(data)])
}
fn status(id: u32, code: u32) -> Vec<u8> {
    packet(101, id, &[&code.to_be_bytes(), &string(b""), &string(b"")])
}
fn handle(id: u32, handle: &[u8]) -> Vec<u8> {
    packet(102, id, &[&string(handle)])
}
fn data(id: u32, data: &[u8]) -> Vec<u8> {
    packet(103, id, &[&string(data)])
}

/// One channel with all that came of it.
struct Channel {
    decoder: Decoder,
    to_target: Vec<u8>,
    to_client: Vec<u8>,
    answers: Vec<u8>,
    events: Vec<FileEvent>,
    refused: Option<Refusal>,
    over: Option<Refusal>,
}

impl Channel {
    fn of(decoder: Decoder) -> Self {
        let (to_target, to_client, answers, events) = Default::default();
        Self { decoder, to_target, to_client, answers, events, refused: None, over: None }
    }

    fn sftp(files: Files) -> Self {
        let mut channel = Self::of(Decoder::Sftp(Box::new(Sftp::new(Rule(files)))));
        channel.up(INIT).down(VERSION);
        channel
    }

    fn scp(direction: Direction) -> Self {
        Self::of(Decoder::Scp(Box::new(Scp::new(direction, "operand".to_owned()))))
    }

    fn take(&mut self, step: Step) -> (Bytes, bool) {
        self.events.extend(step.events);
        self.answers.extend_from_slice(&step.answer);
        self.refused = self.refused.take().or(step.refused);
        self.over = self.over.take().or(step.over);
        (step.on, step.wait)
    }

    /// What the client sends goes as far as it goes.
    fn up(&mut self, bytes: &[u8]) -> &mut Self {
        if self.over.is_none() {
            let step = self.decoder.up(Bytes::copy_from_slice(bytes));
            let (on, _) = self.take(step);
            self.to_target.extend_from_slice(&on);
            self.resume();
        }
        self
    }

    fn down(&mut self, bytes: &[u8]) -> &mut Self {
        if self.over.is_none() {
            let step = self.decoder.down(Bytes::copy_from_slice(bytes));
            let (on, _) = self.take(step);
            self.to_client.extend_from_slice(&on);
            self.resume();
        }
        self
    }

    /// As the two tasks of a channel do: each goes on when the other has moved.
    fn resume(&mut self) {
        while self.over.is_none() {
            let step = self.decoder.up(Bytes::new());
            let (up, _) = self.take(step);
            self.to_target.extend_from_slice(&up);
            let step = self.decoder.down(Bytes::new());
            let (down, _) = self.take(step);
            self.to_client.extend_from_slice(&down);
            if up.is_empty() && down.is_empty() {
                break;
            }
        }
    }

    fn end(&mut self) -> &mut Self {
        let events = self.decoder.end();
        self.events.extend(events);
        self
    }

    fn told(&self, op: &str) -> &FileEvent {
        let found: Vec<_> = self.events.iter().filter(|event| event.op == op).collect();
        assert_eq!(found.len(), 1, "{op} in {:?}", self.events);
        found[0]
    }
}

fn sha256(bytes: &[u8]) -> Option<String> {
    Some(transfer::hex(&Sha256::digest(bytes)))
}

const READ: u32 = 1;
const WRITE_CREATE_TRUNCATE: u32 = 0x1a;

/// A download and an upload, pipelined, as (from the client, packets) and (from the target, packets), taking turns.
fn conversation(content: &[u8]) -> Vec<(bool, Vec<u8>)> {
    let (one, two) = content.split_at(content.len() / 2);
    let (half, size) = (one.len() as u64, content.len() as u64);
    let mut turns = vec![
        (true, [open(1, "/from", READ), open(2, "/to", WRITE_CREATE_TRUNCATE)].concat()),
        (false, [handle(2, b"w"), handle(1, b"r")].concat()),
        (true, [read(3, b"r", half, 9999), read(4, b"r", 0, half as u32), read(5, b"r", size, 9999)].concat()),
        (true, [write(6, b"w", half, two), write(7, b"w", 0, one)].concat()),
    ];
    let first = data(4, one);
    let second = if two.is_empty() { status(3, 1) } else { data(3, two) };
    turns.push((false, [status(5, 1), second, status(7, 0), first, status(6, 0)].concat()));
    turns.push((true, [close(8, b"r"), close(9, b"w")].concat()));
    turns.push((false, [status(8, 0), status(9, 0)].concat()));
    turns
}

#[test]
fn what_goes_on_is_what_came_and_each_file_has_its_digest() {
    let content = b"hello, out of order";
    let mut channel = Channel::sftp(Files::Both);
    let (mut up, mut down) = (INIT.to_vec(), VERSION.to_vec());
    for (from_client, bytes) in conversation(content) {
        if from_client { &mut up } else { &mut down }.extend_from_slice(&bytes);
        if from_client {
            channel.up(&bytes)
        } else {
            channel.down(&bytes)
        };
    }
    assert_eq!(channel.over, None);
    assert!(channel.to_target == up && channel.to_client == down && channel.answers.is_empty());
    for (op, path) in [("download", "/from"), ("upload", "/to")] {
        let event = channel.told(op);
        assert_eq!((event.path.as_str(), event.size, &event.sha256), (path, Some(19), &sha256(content)), "{event:?}");
    }
}

#[test]
fn a_client_that_offers_a_newer_version_is_passed_on_as_offering_3() {
    let mut channel = Channel::of(Decoder::Sftp(Box::new(Sftp::new(Rule(Files::Both)))));
    channel.up(&[0, 0, 0, 5, 1, 0, 0, 0, 6]).up(&open(1, "early", READ));
    assert_eq!(channel.to_target, INIT, "nothing goes on before the target has agreed");
    channel.down(VERSION);
    assert_eq!(channel.to_target, [INIT, &open(1, "early", READ)].concat());
    let mut newer = Channel::of(Decoder::Sftp(Box::new(Sftp::new(Rule(Files::Both)))));
    newer.up(INIT).down(&[0, 0, 0, 5, 2, 0, 0, 0, 4]);
    assert!(newer.over.unwrap().sentence.contains("version 3"));
}

/// Whatever takes a right, each by one packet that takes nothing else.
fn requests() -> Vec<(&'static str, bool, bool, Vec<u8>)> {
    let path = string(b"/p");
    let pair = [string(b"/p"), string(b"/q")].concat();
    let size = [1_u32.to_be_bytes().as_slice(), &0_u64.to_be_bytes()].concat();
    let extended = |name: &str, fields: &[u8]| packet(200, 7, &[&string(name.as_bytes()), fields]);
    let file = [string(b"f"), 0_u64.to_be_bytes().to_vec()].concat();
    vec![
        ("open to read", true, false, open(7, "/p", READ)),
        ("open without flags", true, false, open(7, "/p", 0)),
        ("open to write", false, true, open(7, "/p", 2)),
        ("open to create", false, true, open(7, "/p", WRITE_CREATE_TRUNCATE)),
        ("open to read and write", true, true, open(7, "/p", 3)),
        ("open to append", true, true, open(7, "/p", 4)),
        ("open to truncate without writing", true, true, open(7, "/p", 0x11)),
        ("open with unknown flags", true, true, open(7, "/p", 0x41)),
        ("read", true, false, read(7, b"f", 0, 10)),
        ("write", false, true, write(7, b"f", 0, b"x")),
        ("setstat", false, true, packet(9, 7, &[&path, &size])),
        ("fsetstat", false, true, packet(10, 7, &[&string(b"f"), &size])),
        ("remove", false, true, packet(13, 7, &[&path])),
        ("mkdir", false, true, packet(14, 7, &[&path, &NO_ATTRIBUTES])),
        ("rmdir", false, true, packet(15, 7, &[&path])),
        ("rename", false, true, packet(18, 7, &[&pair])),
        ("symlink", false, true, packet(20, 7, &[&pair])),
        ("posix-rename", false, true, extended("posix-rename@openssh.com", &pair)),
        ("hardlink", false, true, extended("hardlink@openssh.com", &pair)),
        ("lsetstat", false, true, extended("lsetstat@openssh.com", &[path.clone(), size.clone()].concat())),
        ("fsync", false, true, extended("fsync@openssh.com", &string(b"f"))),
        ("copy-data", true, true, extended("copy-data", &[file.clone(), vec![0; 8], file.clone()].concat())),
        ("check-file", true, true, extended("check-file-name", b"whatever")),
        ("stat", false, false, packet(17, 7, &[&path])),
        ("lstat", false, false, packet(7, 7, &[&path])),
        ("fstat", false, false, packet(8, 7, &[&string(b"f")])),
        ("opendir", false, false, packet(11, 7, &[&path])),
        ("readdir", false, false, packet(12, 7, &[&string(b"f")])),
        ("realpath", false, false, packet(16, 7, &[&path])),
        ("readlink", false, false, packet(19, 7, &[&path])),
        ("close", false, false, close(7, b"f")),
        ("statvfs", false, false, extended("statvfs@openssh.com", &path)),
        ("limits", false, false, extended("limits@openssh.com", b"")),
        ("expand-path", false, false, extended("expand-path@openssh.com", &path)),
        ("users-groups", false, false, extended("users-groups-by-id@openssh.com", &[0; 8])),
        ("home-directory", false, false, extended("home-directory", &string(b"me"))),
    ]
}

#[test]
fn each_request_needs_its_rights_and_a_forbidden_one_is_answered_here() {
    for files in [Files::None, Files::Download, Files::Upload, Files::Both] {
        for (name, content, change, request) in requests() {
            let mut channel = Channel::sftp(files);
            // A folder's handle: any entitlement may have one.
            channel.up(&packet(11, 1, &[&string(b"/d")])).down(&handle(1, b"f"));
            channel.to_target.clear();
            channel.up(&request);
            assert_eq!(channel.over, None, "{name}");
            if (content && !files.download()) || (change && !files.upload()) {
                assert!(channel.to_target.is_empty(), "{name} went on under {files:?}");
                let code = if name == "check-file" { 8 } else { 3 };
                assert_eq!(channel.answers[4..13], status(7, code)[4..13], "{name} under {files:?}");
                assert_eq!(channel.refused.is_some(), code == 3, "{name} under {files:?}");
                assert!(channel.events.last().unwrap().fault.as_ref().unwrap().starts_with("refused"), "{name}");
            } else {
                assert_eq!(channel.to_target, request, "{name} under {files:?}");
                assert!(channel.answers.is_empty() && channel.refused.is_none(), "{name} under {files:?}");
            }
        }
    }
}

#[test]
fn what_two_could_read_differently_ends_the_channel() {
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("an empty packet", vec![0, 0, 0, 0]),
        ("a length of 2^32 - 1", vec![255; 64]),
        ("one byte more than 256 KiB", [&(262_145_u32).to_be_bytes(), [17_u8; 100].as_slice()].concat()),
        ("bytes behind the last field", packet(13, 2, &[&string(b"/p"), b"x"])),
        ("a field that is longer than its packet", packet(13, 2, &[&[0, 0, 0, 9], b"/p"])),
        ("a NUL in a path", packet(13, 2, &[&string(b"/p\0/etc")])),
        ("a handle of 257 bytes", close(2, &[b'h'; 257])),
        ("unknown attributes", packet(9, 2, &[&string(b"/p"), &0x100_u32.to_be_bytes()])),
        ("an answer from the client", status(1, 0)),
        ("a second greeting", INIT.to_vec()),
        ("an unknown kind", packet(99, 2, &[])),
        ("an id that is in use", open(1, "/q", READ)),
    ];
    for (name, bytes) in cases {
        let mut channel = Channel::sftp(Files::Both);
        channel.up(&open(1, "/p", READ));
        channel.to_target.clear();
        channel.up(&bytes);
        assert!(channel.over.is_some(), "{name}");
        assert!(channel.to_target.is_empty(), "{name} went on");
    }
    for (name, bytes) in [
        ("an answer to nothing", status(9, 0)),
        ("content for an open", data(1, b"x")),
        ("ok for an open", status(1, 0)),
        ("attributes for an open", packet(105, 1, &[&NO_ATTRIBUTES])),
        ("names for an open", packet(104, 1, &[&NO_ATTRIBUTES])),
        ("a request from the target", packet(13, 1, &[&string(b"/p")])),
    ] {
        let mut channel = Channel::sftp(Files::Both);
        channel.up(&open(1, "/p", READ));
        channel.to_client.clear();
        channel.down(&bytes);
        assert!(channel.over.is_some(), "{name}");
        assert!(channel.to_client.is_empty(), "{name} went on");
    }
    let mut more = Channel::sftp(Files::Both);
    more.up(&open(1, "/p", READ)).down(&handle(1, b"h")).up(&read(2, b"h", 0, 3)).down(&data(2, b"more"));
    assert!(more.over.is_some(), "more than was asked for");
}

#[test]
fn a_handle_is_worth_nothing_before_it_is_given_and_after_it_is_closed() {
    for guess in [write(9, b"h", 0, b"evil"), read(9, b"h", 0, 100), packet(8, 9, &[&string(b"h")]), close(9, b"h")] {
        let mut channel = Channel::sftp(Files::Both);
        channel.up(&open(1, "/a", WRITE_CREATE_TRUNCATE)).down(&handle(1, b"h"));
        channel.to_target.clear();
        // All at once, before any answer: the target will give `h` away again.
        channel.up(&[close(2, b"h"), open(3, "/b", 3), guess.clone()].concat());
        assert_eq!(channel.to_target, [close(2, b"h"), open(3, "/b", 3)].concat(), "{guess:?} went on");
        assert_eq!(channel.answers[4..13], status(9, 4)[4..13]);
        channel.down(&[status(2, 0), handle(3, b"h")].concat());
        channel.up(&write(4, b"h", 0, b"good")).down(&status(4, 0)).up(&close(5, b"h")).down(&status(5, 0));
        assert_eq!(channel.over, None);
        let told: Vec<_> = channel.events.iter().filter(|event| event.op == "upload").collect();
        assert_eq!((told[0].path.as_str(), told[0].bytes, &told[0].sha256), ("/a", Some(0), &sha256(b"")));
        assert_eq!((told[1].path.as_str(), told[1].bytes), ("/b", Some(4)));
        assert_eq!(told.len(), 2);
    }
}

#[test]
fn a_file_is_told_only_when_all_that_was_asked_of_it_is_answered() {
    // A server that answers in an order of its own.
    let mut channel = Channel::sftp(Files::Both);
    channel.up(&open(1, "/a", READ)).down(&handle(1, b"h"));
    channel.up(&[read(2, b"h", 0, 5), read(3, b"h", 5, 5), close(4, b"h")].concat());
    channel.down(&[status(4, 0), status(3, 1)].concat());
    assert!(!channel.events.iter().any(|event| event.op == "download"), "not all of it is answered");
    channel.down(&data(2, b"hello"));
    assert_eq!((channel.told("download").bytes, &channel.told("download").sha256), (Some(5), &sha256(b"hello")));
    // A handle that is open is not another file's.
    let mut twice = Channel::sftp(Files::Both);
    twice.up(&open(1, "/a", READ)).down(&handle(1, b"h")).up(&open(2, "/b", READ)).down(&handle(2, b"h"));
    assert!(twice.over.is_some());
}

#[test]
fn floods_of_requests_and_open_files_are_answered_here_and_cost_no_memory() {
    let mut channel = Channel::sftp(Files::Both);
    for id in 0..20_000_u32 {
        channel.up(&open(id, "/p", READ));
        if id % 2 == 0 && !channel.to_target.is_empty() {
            channel.down(&handle(id, &id.to_be_bytes()));
        }
        channel.to_target.clear();
        channel.events.clear();
    }
    assert_eq!(channel.over, None);
    assert!(channel.answers.len() > 10_000 * 20, "most were answered here");
    let events = channel.end().events.len();
    assert!((4000..=3 * 4096).contains(&events), "{events}");
    let mut long = Channel::sftp(Files::Both);
    for id in 0..100 {
        long.up(&packet(17, id, &[&string(&[b'a'; 60_000])]));
    }
    assert!(long.to_target.len() < 2 << 20 && !long.answers.is_empty(), "names are bounded");
}

#[test]
fn a_channel_that_breaks_off_tells_what_was_moved_until_then() {
    let mut channel = Channel::sftp(Files::Both);
    channel.up(&open(1, "/to", WRITE_CREATE_TRUNCATE)).down(&handle(1, b"h"));
    channel.up(&write(2, b"h", 0, b"abc")).up(&write(3, b"h", 3, b"def")).down(&status(2, 0));
    channel.up(&packet(13, 4, &[&string(b"/gone?")])).end();
    let upload = channel.told("upload");
    assert_eq!((upload.bytes, &upload.sha256), (Some(3), &None));
    assert!(upload.fault.as_ref().unwrap().starts_with("unanswered"));
    assert_eq!(channel.events.iter().filter(|event| event.op == "remove").count(), 2, "asked for, and unanswered");
}

#[test]
fn scp_moves_a_tree_and_tells_each_file() {
    let mut channel = Channel::scp(Direction::Upload);
    let sent = b"D0755 0 sub\nT1 0 1 0\nC0644 5 a b\nhello\0C0600 0 none\n\0E\n";
    channel.up(sent); // all at once: it waits for each answer
    assert!(channel.to_target.is_empty());
    for _ in 0..9 {
        channel.down(b"\0");
    }
    assert_eq!((channel.over.as_ref(), channel.to_target.as_slice()), (None, sent.as_slice()));
    let uploads: Vec<_> = channel.events.iter().filter(|event| event.op == "upload").collect();
    assert_eq!((uploads[0].path.as_str(), uploads[0].to.as_deref()), ("sub/a b", Some("operand")));
    assert_eq!((&uploads[0].sha256, &uploads[1].sha256), (&sha256(b"hello"), &sha256(b"")));
}

#[test]
fn content_that_looks_like_records_after_a_refused_file_is_read_as_the_receiver_reads_it() {
    // The receiver refuses `a`: what follows are records to it, and must be to us.
    let mut refused = Channel::scp(Direction::Upload);
    refused.down(b"\0").up(b"C0644 19 a\n").up(b"C0644 5 evil\nhello\0").down(b"\x01no\n").down(b"\0").down(b"\0");
    assert_eq!(refused.over, None);
    let told: Vec<_> = refused.events.iter().filter(|event| event.op == "upload").collect();
    assert_eq!((told[0].path.as_str(), told[0].fault.as_deref()), ("a", Some("failed: no")));
    assert_eq!((told[1].path.as_str(), &told[1].sha256), ("evil", &sha256(b"hello")));
    // It takes `a`: the same bytes are its content.
    let mut taken = Channel::scp(Direction::Upload);
    taken.down(b"\0").up(b"C0644 19 a\nC0644 5 evil\nhello\0\0").down(b"\0").down(b"\0");
    assert_eq!(taken.told("upload").sha256, sha256(b"C0644 5 evil\nhello\0"));
    // An answer that nobody asked for puts the two out of step: nothing more goes on.
    let mut doubled = Channel::scp(Direction::Upload);
    doubled.down(b"\0").down(b"\x01late\n").up(b"C0644 5 a\n");
    assert!(doubled.over.is_some() && doubled.to_target.is_empty());
}

#[test]
fn a_receipt_that_overtakes_the_senders_verdict_is_understood() {
    // As PuTTY's pscp does. Then the next file, in the usual order.
    let mut channel = Channel::scp(Direction::Download);
    channel.up(b"\0").down(b"C0644 5 a\n").up(b"\0").down(b"hello").up(b"\0").down(b"\0");
    channel.down(b"C0644 0 b\n").up(b"\0").down(b"\0").up(b"\0");
    assert_eq!(channel.over, None);
    assert_eq!(channel.to_client, b"C0644 5 a\nhello\0C0644 0 b\n\0");
    let told: Vec<_> = channel.events.iter().filter(|event| event.op == "download").collect();
    assert_eq!((&told[0].sha256, &told[1].sha256), (&sha256(b"hello"), &sha256(b"")));
    // A receipt given twice is none; and a file that could not be read has no digest, whatever the receiver said before.
    let mut twice = Channel::scp(Direction::Download);
    twice.up(b"\0").down(b"C0644 1 a\n").up(b"\0").down(b"x").up(b"\0").up(b"\0").down(b"\0");
    assert!(twice.over.is_some());
    let mut unread = Channel::scp(Direction::Download);
    unread.up(b"\0").down(b"C0644 1 a\n").up(b"\0").down(b"x").up(b"\0").down(b"\x01gone\n");
    assert_eq!(
        (&unread.told("download").sha256, unread.told("download").fault.as_deref()),
        (&None, Some("failed: gone"))
    );
}

#[test]
fn what_go_sends_behind_the_content_of_a_write_does_not_go_on() {
    let mut channel = Channel::sftp(Files::Both);
    channel.up(&open(1, "/to", WRITE_CREATE_TRUNCATE)).down(&handle(1, b"w"));
    channel.to_target.clear();
    let surplus = packet(6, 2, &[&string(b"w"), &0_u64.to_be_bytes(), &string(b"hello"), &[7; 3000]]);
    channel.up(&surplus).down(&status(2, 0)).up(&close(3, b"w")).down(&status(3, 0));
    assert_eq!(channel.over, None);
    assert_eq!(channel.to_target, [write(2, b"w", 0, b"hello"), close(3, b"w")].concat());
    assert_eq!(channel.told("upload").sha256, sha256(b"hello"));
}

#[test]
fn nothing_but_answers_goes_against_the_direction_of_scp() {
    for (direction, name) in [(Direction::Download, "client"), (Direction::Upload, "target")] {
        for bytes in [b"C0644 1 a\n".as_slice(), b"D0755 0 a\n", b"x", b"\x03", b"\x00C0644 1 a\n"] {
            let mut channel = Channel::scp(direction);
            match direction {
                Direction::Download => channel.up(bytes),
                Direction::Upload => channel.down(bytes),
            };
            assert!(channel.over.is_some(), "{bytes:?} of the {name}");
        }
    }
    for line in [
        b"C0644 1 a/b\n".as_slice(),
        b"C0644 1 ..\n",
        b"C0644 1 \n",
        b"C644 1 a\n",
        b"C0644 -1 a\n",
        b"C0644 99999999999999999999 a\n",
        b"C0649 1 a\n",
        b"E\n",
        b"Ex\n",
        b"T1 2 3\n",
        b"X\n",
        b"\n",
        &[b'C'; 20_000],
    ] {
        let mut channel = Channel::scp(Direction::Upload);
        channel.down(b"\0").up(line);
        assert!(channel.over.is_some() && channel.to_target.is_empty(), "{line:?}");
    }
}

#[test]
fn transfers_start_only_as_the_entitlement_has_them_and_never_through_a_terminal() {
    let start = |line: &str, terminal, files| {
        Decoder::for_start(&Start::Exec(Bytes::copy_from_slice(line.as_bytes())), terminal, files)
            .map(|decoder| decoder.protocol())
            .map_err(|refusal| refusal.sentence)
    };
    let sender = "rsync --server --sender -logDtpre.iLsfxCIvu . /srv/";
    let receiver = "rsync --server -lWogDtpre.iLsfxCIvu . /srv/";
    for (line, way) in
        [("scp -f a", Some(true)), ("scp -t a", Some(false)), (sender, Some(true)), (receiver, Some(false))]
    {
        for files in [Files::None, Files::Download, Files::Upload, Files::Both] {
            let allowed = if way == Some(true) { files.download() } else { files.upload() };
            assert_eq!(start(line, false, files).is_ok(), allowed, "{line} under {files:?}");
        }
    }
    let log = "rsync --server --sender --log-file=x -logDtpre.iLsfxCIvu . /srv/";
    assert!(start(log, false, Files::Download).is_err() && start(log, false, Files::Both).is_ok());
    let sums = "rsync --server -logDtpre.iLsfxCIvu . /srv/";
    assert!(
        start(sums, false, Files::Upload).unwrap_err().contains("without -W")
            && start(sums, false, Files::Both).is_ok()
    );
    for line in ["scp -f $HOME/f", "env rsync --server . a", "exec /usr/lib/openssh/sftp-server", "scp -t a!"] {
        for files in [Files::None, Files::Download, Files::Upload] {
            assert!(start(line, false, files).unwrap_err().contains("is not plain"), "{line} under {files:?}");
        }
        assert_eq!(start(line, false, Files::Both), Ok(None), "{line}");
    }
    assert_eq!(start("/usr/lib/openssh/sftp-server", false, Files::None), Ok(Some("sftp")));
    for line in ["scp -f a", "scp -t a", "internal-sftp"] {
        assert!(start(line, true, Files::Both).unwrap_err().contains("terminal"), "{line}");
    }
    assert!(Decoder::for_start(&Start::Subsystem("sftp".to_owned()), true, Files::Both).is_err());
    assert_eq!(start("cat a", true, Files::None), Ok(None));
}

proptest! {
    #[test]
    fn pieces_cut_anywhere_are_told_like_the_whole(
        content in proptest::collection::vec(any::<u8>(), 0..200),
        cuts in proptest::collection::vec(1..60usize, 1..30),
    ) {
        let mut whole = Channel::sftp(Files::Both);
        let mut cut = Channel::sftp(Files::Both);
        let mut sizes = cuts.iter().cycle();
        for (from_client, bytes) in conversation(&content) {
            if from_client { whole.up(&bytes) } else { whole.down(&bytes) };
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
                if from_client { cut.up(piece) } else { cut.down(piece) };
                rest = after;
            }
        }
        prop_assert_eq!(&whole.over, &None);
        prop_assert_eq!(&cut.over, &None);
        prop_assert_eq!(&cut.events, &whole.events);
        prop_assert!(cut.to_target == whole.to_target && cut.to_client == whole.to_client);
        prop_assert_eq!(&whole.told("upload").sha256, &sha256(&content));
        prop_assert_eq!(&whole.told("download").sha256, &sha256(&content));
    }

    #[test]
    fn scp_cut_anywhere_is_told_like_the_whole(
        files in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..50), any::<bool>()), 0..6),
        cuts in proptest::collection::vec(1..30usize, 1..20),
        upload in any::<bool>(),
    ) {
        let direction = if upload { Direction::Upload } else { Direction::Download };
        let (mut sent, mut answers, mut digests) = (Vec::new(), vec![0_u8], Vec::new());
        for (n, (content, taken)) in files.iter().enumerate() {
            sent.extend_from_slice(format!("C0644 {} f{n}\n", content.len()).as_bytes());
            if *taken {
                sent.extend_from_slice(content);
                sent.push(0);
                answers.extend_from_slice(&[0, 0]);
                digests.push(sha256(content));
            } else {
                answers.extend_from_slice(b"\x01no\n");
                digests.push(None);
            }
        }
        let mut channel = Channel::scp(direction);
        let mut sizes = cuts.iter().cycle();
        // The sender is ahead of the answers, which a real one never is.
        let mut rest = sent.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            if upload { channel.up(piece) } else { channel.down(piece) };
            rest = after;
        }
        for answer in &answers {
            if upload { channel.down(&[*answer]) } else { channel.up(&[*answer]) };
        }
        prop_assert_eq!(&channel.over, &None);
        let passed = if upload { &channel.to_target } else { &channel.to_client };
        prop_assert_eq!(passed, &sent);
        let told: Vec<_> = channel.events.iter().filter(|e| e.op == direction.op()).map(|e| e.sha256.clone()).collect();
        prop_assert_eq!(told, digests);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn garbage_never_panics_and_only_whole_requests_that_may_go_on_do(
        garbage in proptest::collection::vec((any::<bool>(), proptest::collection::vec(
            prop_oneof![4 => Just(0_u8), 1 => 0..32_u8, 1 => 100..106_u8, 1 => any::<u8>()], 0..64)), 0..30),
        kind in 0..4usize,
    ) {
        let mut channel = match kind {
            0 => Channel::sftp(Files::None),
            1 => Channel::sftp(Files::Both),
            2 => Channel::scp(Direction::Upload),
            _ => Channel::scp(Direction::Download),
        };
        channel.to_target.clear();
        for (from_client, bytes) in &garbage {
            if *from_client { channel.up(bytes) } else { channel.down(bytes) };
        }
        channel.end();
        if kind == 0 {
            let mut rest = channel.to_target.as_slice();
            while let Some((length, body)) = rest.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                let forbidden = [3, 5, 6, 9, 10, 13, 14, 15, 18, 20];
                prop_assert!(!forbidden.contains(&body[0]), "{:?}", body);
                rest = &body[length..];
            }
        }
    }
}
