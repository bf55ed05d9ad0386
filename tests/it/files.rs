//! Files through the gate, with the clients that people have: what moved is told with its digest, and what an entitlement
//! does not allow does not reach the target.

use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tidegate_tests::{
    Running, World,
    running::{Output, run},
    wait::wait_until,
    world::{PATIENCE, Plan},
};

/// Entitlements that are like `shell`, but for files.
fn entitlement(files: &str) -> String {
    format!(
        "[[entitlement]]\nname = \"{files}\"\ngroups = [\"sre\"]\ntargets = {{ env = \"prod\" }}\nlogins = [\"deploy\"]\n\
         max_duration = \"1h\"\nfiles = \"{files}\"\n"
    )
}

/// A world in which alice holds a grant for each of these.
fn world(files: &[&str]) -> World {
    let plan = files.iter().fold(Plan::new().only_ssh(), |plan, files| plan.block(entitlement(files)));
    let world = plan.start();
    for files in files {
        world.gateway.grant("alice", "web-1", files, "30m");
    }
    world
}

fn door(files: &str) -> String {
    format!("deploy~{files}@web-1@127.0.0.1")
}

/// `sftp`, `scp` or the like with alice's options, and then these.
fn client(world: &World, program: &str, more: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(world.ssh_options("alice")).args(more);
    command.env_remove("SSH_AUTH_SOCK").env("LC_ALL", "C.UTF-8").current_dir(world.dir());
    command
}

fn sftp(world: &World, files: &str, batch: &str) -> Output {
    let mut command = client(world, "sftp", &["-b", "-", &door(files)]);
    command.env("HOME", world.dir());
    let mut sftp = Running::start(command);
    sftp.send(batch);
    sftp.finish(PATIENCE)
}

fn scp(world: &World, args: &[&str]) -> Output {
    run(client(world, "scp", args), PATIENCE)
}

/// What the recordings of all sessions so far say about files, in the order of the sessions.
fn told(world: &World) -> Vec<Value> {
    let sealed = || {
        let recordings = world.gateway.recordings();
        recordings.iter().all(|recording| recording["state"] == "complete").then_some(recordings)
    };
    let recordings = wait_until(PATIENCE, "all recordings are sealed", sealed);
    let mut sessions: Vec<String> = recordings.iter().map(|r| r["session"].as_str().unwrap().to_owned()).collect();
    sessions.sort();
    let events = sessions.iter().flat_map(|session| world.gateway.events(session));
    events.filter(|event| event["event"] == "file").collect()
}

/// Events with this operation, on a path that ends so.
fn about<'a>(events: &'a [Value], op: &str, end: &str) -> Vec<&'a Value> {
    let path = |event: &Value| event["path"].as_str().unwrap_or_default().ends_with(end);
    events.iter().filter(|event| event["op"] == op && path(event)).collect()
}

#[track_caller]
fn one<'a>(events: &'a [Value], op: &str, end: &str) -> &'a Value {
    let found = about(events, op, end);
    assert_eq!(found.len(), 1, "one {op} of {end} in {events:#?}");
    found[0]
}

fn sha256sum(path: &Path) -> String {
    let mut command = Command::new("sha256sum");
    command.arg(path);
    run(command, PATIENCE).ok().out().split_whitespace().next().unwrap().to_owned()
}

/// Asserts that the transfer is told with the size and the digest of this file on the disk.
#[track_caller]
fn assert_whole(events: &[Value], op: &str, end: &str, on_disk: &Path) {
    let event = one(events, op, end);
    assert_eq!(event["size"], fs::metadata(on_disk).unwrap().len(), "{event}");
    assert_eq!(event["bytes"], event["size"], "{event}");
    assert_eq!(event["sha256"], sha256sum(on_disk), "{event}");
    assert_eq!(event["fault"], Value::Null, "{event}");
}

/// A file with content that is nowhere else.
fn file(at: &Path, bytes: u32) -> PathBuf {
    let content: Vec<u8> = (0..bytes).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::write(at, content).unwrap();
    at.to_owned()
}

/// A folder of some files, empty and large, nested.
fn tree(at: &Path) {
    file(&at.join("empty"), 0);
    file(&at.join("one"), 1);
    file(&at.join("a b/größe"), 100_000);
    file(&at.join("a b/deep/er/3MiB"), 3 << 20);
}

fn same_tree(one: &Path, other: &Path) {
    let mut diff = Command::new("diff");
    diff.arg("-r").arg(one).arg(other);
    run(diff, PATIENCE).ok();
}

#[test]
fn sftp_tells_each_operation_and_the_digest_of_each_whole_file() {
    let world = world(&["both"]);
    let (local, home) = (world.dir().join("local"), world.sshd().home());
    let big = file(&local.join("big"), 5_000_001);
    tree(&local.join("tree"));
    let batch = format!(
        "mkdir d\nput {local}/big d/big\nput -r {local}/tree d\nchmod 600 d/big\nrename d/big d/renamed\n\
         ln -s renamed d/soft\nln d/renamed d/hard\nls -l d\nget d/renamed {local}/back\nget -r d/tree {local}/tree2\n\
         rm d/hard\nmkdir d/gone\nrmdir d/gone\n-rm d/never-there\nput {local}/tree/empty d/none\n",
        local = local.display()
    );
    sftp(&world, "both", &batch).ok();
    assert_eq!(sha256sum(&big), sha256sum(&local.join("back")));
    same_tree(&local.join("tree"), &local.join("tree2"));
    same_tree(&local.join("tree"), &home.join("d/tree"));
    let events = told(&world);
    assert_whole(&events, "upload", "/d/big", &big);
    assert_whole(&events, "download", "/d/renamed", &big);
    for name in ["empty", "one", "a b/größe", "a b/deep/er/3MiB"] {
        for op in ["upload", "download"] {
            assert_whole(&events, op, &format!("/d/tree/{name}"), &local.join("tree").join(name));
        }
    }
    assert_whole(&events, "upload", "/d/none", &local.join("tree/empty"));
    assert_eq!(one(&events, "rename", "/d/big")["to"].as_str().unwrap().rsplit('/').next(), Some("renamed"));
    assert_eq!(one(&events, "link-symbolic", "/d/soft")["to"], "renamed");
    assert!(one(&events, "link", "/d/renamed")["to"].as_str().unwrap().ends_with("/d/hard"));
    assert!(about(&events, "set", "/d/big").iter().any(|set| set["detail"].as_str().unwrap().contains("mode 600")));
    one(&events, "make-folder", "/d/gone");
    one(&events, "remove-folder", "/d/gone");
    one(&events, "remove", "/d/hard");
    assert!(!about(&events, "list", "/d/").is_empty(), "{events:#?}");
    let never = about(&events, "stat", "/d/never-there");
    assert!(never.iter().any(|event| event["fault"] == "failed: no such file"), "{never:?}");
}

#[test]
fn a_resumed_transfer_is_told_as_the_part_that_it_is() {
    let world = world(&["both"]);
    let (local, home) = (world.dir().join("local"), world.sshd().home());
    let whole = file(&local.join("whole"), 300_000);
    let part = |at: &Path| fs::write(at, &fs::read(&whole).unwrap()[..100_000]).unwrap();
    part(&home.join("up"));
    part(&local.join("down"));
    fs::copy(&whole, home.join("down")).unwrap();
    run(chown(&home), PATIENCE).ok();
    let batch = format!("reput {0}/whole up\nreget down {0}/down\n", local.display());
    sftp(&world, "both", &batch).ok();
    assert_eq!(fs::read(home.join("up")).unwrap(), fs::read(&whole).unwrap());
    assert_eq!(fs::read(local.join("down")).unwrap(), fs::read(&whole).unwrap());
    let events = told(&world);
    for (op, name) in [("upload", "/up"), ("download", "/down")] {
        let event = one(&events, op, name);
        assert_eq!((&event["bytes"], &event["sha256"]), (&Value::from(200_000), &Value::Null), "{event}");
    }
    let ranges = &one(&events, "download", "/down")["ranges"];
    assert_eq!(*ranges, serde_json::json!([[100_000, 300_000]]));
}

/// Gives a home's files to its account, as the files that a test put there are root's.
fn chown(home: &Path) -> Command {
    let mut command = Command::new("chown");
    command.arg("-R").arg("--reference").arg(home).arg(home);
    command
}

#[test]
fn scp_of_both_protocols_moves_trees_both_ways_and_tells_each_file() {
    let world = world(&["both"]);
    let (local, home) = (world.dir().join("local"), world.sshd().home());
    tree(&local.join("tree"));
    let at = |path: &str| format!("{}:{path}", door("both"));
    for (protocol, name) in [("-O", "old"), ("-s", "new")] {
        let back = local.join(format!("back-{name}"));
        let (tree, back) = (local.join("tree").display().to_string(), back.display().to_string());
        scp(&world, &[protocol, "-r", "-p", &tree, &at(name)]).ok();
        scp(&world, &[protocol, "-r", "-p", &at(name), &back]).ok();
        same_tree(&local.join("tree"), &home.join(name));
        same_tree(&local.join("tree"), Path::new(&back));
        scp(&world, &[protocol, &format!("{tree}/one"), &format!("{tree}/a b/größe"), &at(name)]).ok();
    }
    let events = told(&world);
    for name in ["empty", "one", "a b/größe", "a b/deep/er/3MiB"] {
        let on_disk = local.join("tree").join(name);
        for op in ["upload", "download"] {
            let end = format!("/{name}");
            let all: Vec<&Value> = about(&events, op, &end).into_iter().filter(|e| e["sha256"].is_string()).collect();
            assert!(all.len() >= 2, "{op} of {name}, old and new, in {events:#?}");
            assert!(all.iter().all(|event| event["sha256"] == sha256sum(&on_disk)), "{all:?}");
        }
    }
    assert_eq!(about(&events, "upload", "one").len(), 4, "{events:#?}");
    assert!(events.iter().all(|event| event["op"] == "stat" || event["fault"].is_null()), "{events:#?}");
}

#[test]
fn scp_of_what_is_not_there_says_so_as_it_does_without_the_gate() {
    let world = world(&["both"]);
    let at = |path: &str| format!("{}:{path}", door("both"));
    file(&world.dir().join("here"), 10);
    scp(&world, &["-O", &at("never"), "."]).exited(1).says("No such file");
    scp(&world, &["-O", "here", &at("no/such/folder/x")]).exited(1).says("No such file");
    scp(&world, &["-O", "-r", "here", &at("/proc/1/nothing")]).exited(1);
    let events = told(&world);
    assert!(
        events.iter().any(|event| event["fault"].as_str().is_some_and(|f| f.contains("No such file"))),
        "{events:?}"
    );
}

/// `rsync` over alice's `ssh`.
fn rsync(world: &World, more: &[&str]) -> Output {
    let words: Vec<String> = world.ssh_options("alice").iter().map(|word| format!("'{word}'")).collect();
    let mut command = Command::new("rsync");
    command.args(["-a", "-e", &format!("ssh {}", words.join(" "))]).args(more).env_remove("SSH_AUTH_SOCK");
    run(command, PATIENCE)
}

/// Each way that there is to move a file, tried one by one; true: it arrived.
fn tried(world: &World, files: &str) -> [(&'static str, bool, String); 8] {
    let (local, home) = (world.dir().join("local"), world.sshd().home());
    let at = |path: &str| format!("{}:{path}", door(files));
    let (here, there) = (local.join("here").display().to_string(), home.join("there"));
    let arrived = |path: PathBuf, like: &Path| {
        let arrived = fs::read(&path).is_ok_and(|got| got == fs::read(like).unwrap());
        fs::remove_file(&path).ok();
        arrived
    };
    let up = |name, output: Output| (name, arrived(home.join("new"), Path::new(&here)), output.err());
    let down = |name, output: Output| (name, arrived(local.join("new"), &there), output.err());
    let new = local.join("new").display().to_string();
    [
        up("put", sftp(world, files, &format!("put {here} new\n"))),
        down("get", sftp(world, files, &format!("get there {new}\n"))),
        up("scp up", scp(world, &[&here, &at("new")])),
        down("scp down", scp(world, &[&at("there"), &new])),
        up("scp -O up", scp(world, &["-O", &here, &at("new")])),
        down("scp -O down", scp(world, &["-O", &at("there"), &new])),
        up("rsync up", rsync(world, &["-W", &here, &at("new")])),
        down("rsync down", rsync(world, &[&at("there"), &new])),
    ]
}

#[test]
fn files_go_only_the_ways_that_the_entitlement_has_whatever_client_moves_them() {
    let world = world(&["none", "download", "upload", "both"]);
    file(&world.dir().join("local/here"), 70_000);
    file(&world.sshd().home().join("there"), 80_000);
    run(chown(&world.sshd().home()), PATIENCE).ok();
    for (files, ups, downs) in
        [("none", false, false), ("download", false, true), ("upload", true, false), ("both", true, true)]
    {
        for (n, (name, arrived, said)) in tried(&world, files).into_iter().enumerate() {
            let is_up = n % 2 == 0;
            assert_eq!(arrived, if is_up { ups } else { downs }, "{name} under {files}: {said}");
            let sentence = if is_up { "does not let you upload" } else { "does not let you download" };
            assert_eq!(said.contains(sentence), !arrived, "{name} under {files}: {said}");
        }
        let listed = sftp(&world, files, "ls -l there\n").ok();
        assert!(listed.out().contains("80000"), "{}", listed.out());
    }
    let ledger = world.gateway.ledger();
    assert_eq!(ledger.count("files.refused"), 8 + 4 + 4, "{}", ledger.story());
}

#[test]
fn an_rsync_that_could_read_the_files_of_the_target_is_refused_under_uploads() {
    let world = world(&["upload", "both"]);
    let here = file(&world.dir().join("here"), 70_000).display().to_string();
    let at = |files: &str| format!("{}:new", door(files));
    rsync(&world, &[&here, &at("both")]).ok();
    rsync(&world, &[&here, &at("upload")]).says("without -W rsync tells checksums").says("add -W");
    for option in ["-c", "-B1", "-y", "--compare-dest=/etc", "--copy-dest=/etc", "--link-dest=/etc", "--delete"] {
        let said = rsync(&world, &["-r", "-W", option, &here, &at("upload")]);
        assert!(said.err().contains("options that may do more"), "{option}: {}", said.err());
    }
    for option in [["--inplace", "-v"], ["-z", "--chmod=600"], ["-HAX", "--partial"], ["-u", "--bwlimit=9000"]] {
        rsync(&world, &["-W", option[0], option[1], &here, &at("upload")]).ok();
    }
}

#[test]
fn what_cannot_be_judged_is_no_way_around_the_entitlement() {
    let world = world(&["upload", "download"]);
    let home = world.sshd().home();
    file(&home.join("there"), 10);
    run(chown(&home), PATIENCE).ok();
    let new = world.dir().join("new").display().to_string();
    let at = |path: &str| format!("{}:{path}", door("upload"));
    scp(&world, &["-O", &at("$HOME/there"), &new]).says("is not plain").says("write the path without $");
    rsync(&world, &["--rsync-path=env rsync", &at("there"), &new]).says("is not plain").says("leave out --old-args");
    rsync(&world, &["--old-args", &at("$HOME/there"), &new]).says("is not plain");
    let server = "exec /usr/lib/openssh/sftp-server";
    let mut command = client(&world, "sftp", &["-b", "/dev/null", "-s", server, &door("download")]);
    command.env("HOME", world.dir());
    run(command, PATIENCE).says("use sftp without -s");
    assert!(!Path::new(&new).exists());
    run(client(&world, "ssh", &[&door("upload"), "echo $HOME scp; true"]), PATIENCE).ok();
}

#[test]
fn a_guessed_handle_does_not_reach_the_target() {
    let world = world(&["both"]);
    let open = |id, path: &[u8]| packet(3, id, &[&string(path), &0x1a_u32.to_be_bytes(), &[0; 4]]);
    let mut sftp = by_hand(&world, "both");
    sftp.send(open(1, b"first"));
    until_answered(&sftp);
    let write = packet(6, 4, &[&string(&[0; 4]), &[0; 8], &string(b"evil")]);
    sftp.send([packet(4, 2, &[&string(&[0; 4])]), open(3, b"second"), write].concat());
    // SSH_FXP_STATUS for request 4: failure.
    sftp.until_stdout("e\0\0\0\x04\0\0\0\x04", PATIENCE);
    sftp.until_stdout("f\0\0\0\x03", PATIENCE);
    sftp.finish(PATIENCE);
    assert_eq!(fs::read(world.sshd().home().join("second")).unwrap(), b"");
}

#[test]
fn under_downloads_nothing_on_the_target_can_be_changed() {
    let world = world(&["download"]);
    let home = world.sshd().home();
    file(&home.join("d/f"), 10);
    run(chown(&home), PATIENCE).ok();
    let before = listing(&home);
    let local = file(&world.dir().join("f"), 20).display().to_string();
    let batch = format!(
        "-put {local} new\n-put {local} d/f\n-reput {local} d/f\n-rm d/f\n-rename d/f d/g\n-mkdir e\n-rmdir d\n\
         -chmod 777 d/f\n-chown 0 d/f\n-ln d/f hard\n-ln -s d/f soft\n-copy d/f d/copy\n-get d/f {local}\n"
    );
    let said = sftp(&world, "download", &batch).ok();
    assert_eq!(said.err().matches("does not let you upload or change files").count(), 1, "{}", said.err());
    assert_eq!(listing(&home), before);
    let events = told(&world);
    let refused: Vec<&str> = events
        .iter()
        .filter(|event| event["fault"].as_str().is_some_and(|fault| fault.starts_with("refused")))
        .map(|event| event["op"].as_str().unwrap())
        .collect();
    for op in ["open", "remove", "rename", "make-folder", "remove-folder", "set", "link", "link-symbolic"] {
        assert!(refused.contains(&op), "{op} in {refused:?}");
    }
    assert_whole(&events, "download", "/d/f", &home.join("d/f"));
}

fn listing(of: &Path) -> String {
    let mut find = Command::new("find");
    find.arg(of).args(["-printf", "%P %m %U %s %T@ %n\n"]);
    run(find, PATIENCE).ok().out()
}

/// One packet of SFTP.
fn packet(kind: u8, id: u32, fields: &[&[u8]]) -> Vec<u8> {
    let body = [&[kind], id.to_be_bytes().as_slice(), &fields.concat()].concat();
    string(&body)
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

const INIT: [u8; 9] = [0, 0, 0, 5, 1, 0, 0, 0, 3];

/// A client of our own on the SFTP subsystem.
fn by_hand(world: &World, files: &str) -> Running {
    let mut sftp = Running::start(client(world, "ssh", &["-s", &door(files), "sftp"]));
    sftp.send(INIT);
    sftp
}

/// Until request 1 has its handle of four bytes (OpenSSH's first is 0), or permission was denied.
fn until_answered(sftp: &Running) {
    let answers = ["f\0\0\0\x01\0\0\0\x04", "e\0\0\0\x01\0\0\0\x03"];
    wait_until(PATIENCE, "the open is answered", || {
        let said = sftp.stdout();
        answers.iter().any(|answer| said.contains(answer)).then_some(())
    });
}

#[test]
fn a_file_that_is_opened_without_flags_is_not_read_under_uploads() {
    // OpenSSH's server opens it to be read.
    let world = world(&["upload", "both"]);
    fs::write(world.sshd().home().join("secret"), "the secret itself").unwrap();
    let open = packet(3, 1, &[&string(b"secret"), &[0; 4], &[0; 4]]);
    let read = packet(5, 2, &[&string(&[0; 4]), &[0; 8], &100_u32.to_be_bytes()]);
    let read_by = |files: &str, answer: &str| {
        let mut sftp = by_hand(&world, files);
        sftp.send(&open);
        until_answered(&sftp);
        sftp.send(&read);
        sftp.until_stdout(answer, PATIENCE);
        sftp.finish(PATIENCE)
    };
    read_by("both", "the secret itself");
    // SSH_FXP_STATUS for request 2: permission denied.
    let refused = read_by("upload", "e\0\0\0\x02\0\0\0\x03").says("does not let you download");
    assert!(!String::from_utf8_lossy(&refused.stdout).contains("secret itself"));
}

#[test]
fn what_is_not_understood_as_sftp_does_not_reach_the_target() {
    let world = world(&["both"]);
    let home = world.sshd().home();
    fs::write(home.join("victim"), "still here").unwrap();
    run(chown(&home), PATIENCE).ok();
    // A server in C reads the path up to the NUL.
    for (bytes, why) in [
        (packet(13, 1, &[&string(b"victim\0x")]), "NUL"),
        (packet(13, 1, &[&string(b"victim"), b"x"]), "behind its last field"),
        (vec![0xff; 100], "larger than 256 KiB"),
    ] {
        let mut sftp = by_hand(&world, "both");
        sftp.send(&bytes);
        sftp.end(PATIENCE).exited(1).says("not understood as SFTP").says(why);
        assert!(home.join("victim").exists());
    }
}

#[test]
fn an_upload_that_is_cut_by_a_revocation_is_told_as_far_as_it_came() {
    let world = Plan::new().only_ssh().start();
    let grant = world.gateway.grant("alice", "web-1", "shell", "30m");
    let mut sftp = by_hand(&world, "shell");
    sftp.send(packet(3, 1, &[&string(b"half"), &0x1a_u32.to_be_bytes(), &[0; 4]]));
    until_answered(&sftp);
    sftp.send(packet(6, 2, &[&string(&[0; 4]), &[0; 8], &string(b"first half")]));
    let half = world.sshd().home().join("half");
    wait_until(PATIENCE, "a part is there", || fs::read(&half).is_ok_and(|got| got == b"first half").then_some(()));
    world.gateway.revoke(&grant);
    sftp.end(PATIENCE);
    let events = told(&world);
    let upload = one(&events, "upload", "half");
    assert_eq!((&upload["bytes"], &upload["sha256"]), (&Value::from(10), &Value::Null), "{upload}");
    assert!(upload["fault"].as_str().unwrap().starts_with("unanswered"), "{upload}");
}

#[test]
fn a_transcript_tells_what_was_done_and_not_the_bytes_of_the_protocol() {
    let world = world(&["both"]);
    let small = world.dir().join("small");
    fs::write(&small, "content of the file").unwrap();
    sftp(&world, "both", &format!("put {} small\n", small.display())).ok();
    told(&world);
    let session = world.gateway.recordings()[0]["session"].as_str().unwrap().to_owned();
    let text = world.gateway.export(&session, "text");
    assert!(text.contains(&format!("19 bytes, SHA-256 {}", sha256sum(&small))), "{text}");
    assert!(text.contains("understood as sftp") && !text.contains("content of the file"), "{text}");
}

/// A folder of the target, mounted until this is dropped.
struct Mounted {
    at: PathBuf,
    sshfs: Option<Running>,
}

impl Mounted {
    fn new(world: &World) -> Self {
        let at = world.dir().join("mounted");
        fs::create_dir(&at).unwrap();
        let ssh: Vec<String> = std::iter::once("ssh".to_owned()).chain(world.ssh_options("alice")).collect();
        let mut command = Command::new("sshfs");
        command.arg("-f").arg("-o").arg(format!("ssh_command={}", ssh.join(" "))).arg(format!("{}:", door("both")));
        command.arg(&at).env_remove("SSH_AUTH_SOCK");
        let sshfs = Running::start(command);
        let mounts = || fs::read_to_string("/proc/mounts").unwrap().contains(at.to_str().unwrap()).then_some(());
        wait_until(PATIENCE, "sshfs has mounted", mounts);
        Self { at, sshfs: Some(sshfs) }
    }

    fn unmount(&mut self) {
        let Some(sshfs) = self.sshfs.take() else { return };
        let mut unmount = Command::new("umount");
        unmount.arg(&self.at);
        run(unmount, PATIENCE);
        sshfs.finish(PATIENCE);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.unmount();
    }
}

#[test]
fn through_sshfs_files_come_and_go_unchanged_and_no_digest_is_wrong() {
    if fs::File::options().read(true).write(true).open("/dev/fuse").is_err() {
        eprintln!("SKIPPED: this machine has no /dev/fuse");
        return;
    }
    let world = world(&["both"]);
    let (local, home) = (world.dir().join("local"), world.sshd().home());
    tree(&local.join("tree"));
    let copy = |from: &Path, to: &Path| {
        let mut cp = Command::new("cp");
        cp.arg("-r").arg(from).arg(to);
        run(cp, PATIENCE).ok();
    };
    let mut mounted = Mounted::new(&world);
    copy(&local.join("tree"), &mounted.at.join("tree"));
    copy(&mounted.at.join("tree"), &local.join("back"));
    let mut patched = fs::File::options().write(true).open(mounted.at.join("tree/a b/größe")).unwrap();
    std::io::Seek::seek(&mut patched, std::io::SeekFrom::Start(5000)).unwrap();
    std::io::Write::write_all(&mut patched, b"in the middle").unwrap();
    drop(patched);
    mounted.unmount();
    same_tree(&local.join("tree"), &local.join("back"));
    let events = told(&world);
    for name in ["one", "a b/größe", "a b/deep/er/3MiB"] {
        let end = format!("/{name}");
        let [ups, downs] = ["upload", "download"].map(|op| about(&events, op, &end));
        let moved = |all: &[&Value]| all.iter().map(|event| event["bytes"].as_u64().unwrap()).sum::<u64>();
        let size = fs::metadata(local.join("tree").join(name)).unwrap().len();
        assert!(moved(&ups) >= size, "{name}: {ups:?}");
        assert!(moved(&downs) <= size, "{name}: {downs:?}"); // less: sshfs remembers what it wrote
        let right = sha256sum(&local.join("tree").join(name));
        assert!(ups.iter().chain(&downs).all(|event| event["sha256"].is_null() || event["sha256"] == right), "{ups:?}");
    }
    let patch = about(&events, "upload", "/a b/größe").pop().unwrap();
    assert_eq!((&patch["sha256"], &patch["ranges"]), (&Value::Null, &serde_json::json!([[5000, 5013]])), "{patch}");
    assert_ne!(sha256sum(&home.join("tree/a b/größe")), sha256sum(&local.join("tree/a b/größe")));
}
