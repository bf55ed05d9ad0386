//! Forwarding by policy, with OpenSSH's own `-L`, `-D` and `-W`, and `curl` for what goes through them.

use serde_json::Value;
use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use tidegate_tests::{
    Cable, Ledger, Output, Running, World,
    daemon::{Daemon, Signal, mortal},
    running::run,
    scratch::Port,
    secs, wait_until,
    world::{PATIENCE, Plan},
};

/// Something on the target that answers. It counts who comes.
struct Service {
    port: u16,
    came: Arc<AtomicUsize>,
}

impl Service {
    /// Sends back what it was sent, once it has seen its end.
    fn echo() -> Self {
        Self::start(|mut stream| {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).ok();
            stream.write_all(&all).ok();
        })
    }

    /// A page, for whatever was asked.
    fn http() -> Self {
        Self::start(|mut stream| {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_err() {
                    return;
                }
                head.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\na service").ok();
        })
    }

    /// Says that it is there, and waits.
    fn waiting() -> Self {
        Self::start(|mut stream| {
            stream.write_all(b"here").ok();
            stream.read_to_end(&mut Vec::new()).ok();
        })
    }

    fn start(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (port, came) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let count = came.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let serve = serve.clone();
                thread::spawn(move || serve(stream));
            }
        });
        Self { port, came }
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }
}

/// A world whose shell entitlement has these rules, with a grant for alice.
fn world(rules: &[String]) -> World {
    with(Plan::new(), rules)
}

fn with(plan: Plan, rules: &[String]) -> World {
    let forward = format!("logins = [\"deploy\"]\nforward = {rules:?}");
    let world = plan.only_ssh().change("logins = [\"deploy\"]", &forward).start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world
}

/// `ssh OPTIONS`, when its listeners are there. It stays until its stdin ends.
fn tunnel(world: &World, options: &[&str]) -> Running {
    let options = [&["-o", "ExitOnForwardFailure=yes"], options].concat();
    let ssh = Running::start(world.ssh_command("alice", &options, "deploy@web-1", &["echo ready; exec cat"]));
    ssh.until_stdout("ready", PATIENCE);
    ssh
}

fn curl(args: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "50", "--noproxy", ""]).args(args).env_remove("ALL_PROXY");
    run(command, PATIENCE)
}

/// What a connection to this local port gives, and whether that was all of it.
fn through(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = Vec::new();
    if stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write)).is_ok() {
        stream.read_to_end(&mut all).ok();
    }
    all
}

/// The events of the only recording.
fn events(world: &World) -> Vec<Value> {
    let recordings = world.gateway.recordings();
    assert_eq!(recordings.len(), 1, "{recordings:?}");
    world.gateway.events(recordings[0]["session"].as_str().unwrap())
}

/// Ends a tunnel, and waits until its session is closed.
fn close(world: &World, ssh: Running) -> Output {
    let output = ssh.finish(PATIENCE);
    world.gateway.until_ledger("session.closed", 1, secs(90));
    output
}

fn destinations(world: &World) -> Vec<String> {
    let ledger = world.gateway.ledger();
    let mut all: Vec<String> = ledger
        .all("forward.refused")
        .iter()
        .map(|entry| entry["detail"]["destination"].as_str().unwrap_or("?").to_owned())
        .collect();
    all.sort();
    all
}

#[test]
fn a_port_that_a_rule_names_is_reached_and_recorded_with_its_bytes() {
    let service = Service::http();
    let world = world(&[format!("localhost:{}", service.port)]);
    let local = Port::take();
    let ssh = tunnel(&world, &["-L", &format!("{}:localhost:{}", local.number(), service.port)]);
    let url = format!("http://127.0.0.1:{}/some/page", local.number());
    assert_eq!(curl(&[&url]).ok().out(), "a service");
    assert_eq!(close(&world, ssh).ok().err(), "");
    assert_eq!(service.came(), 1);

    let events = events(&world);
    let text = events.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let opened = events.iter().find(|e| e.to_string().contains("\"forward\"")).unwrap_or_else(|| panic!("{text}"));
    let opened = opened.to_string();
    assert!(opened.contains(&format!("\"localhost:{}\"", service.port)), "{opened}");
    assert!(opened.contains(&format!("\"127.0.0.1:{}\"", service.port)), "{opened}");
    assert!(text.contains("GET /some/page"), "{text}");
    let transcript = world.gateway.export(&recording(&world), "text");
    let total = transcript.lines().find(|l| l.contains("channel 1 stdout:") && l.contains("bytes in all"));
    assert!(total.is_some_and(|l| l.contains("SHA-256")), "{transcript}");
    // How much went which way is for every auditor, also of what is under the keystroke key.
    let closed = transcript.lines().find(|l| l.contains("channel 1: closed, with"));
    let counts: Vec<u64> = closed.unwrap_or_default().split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(matches!(counts[..], [up, down] if up > 40 && down > "a service".len() as u64), "{transcript}");

    // The connection for it has a certificate of its own, which starts no program.
    let ledger = world.gateway.ledger();
    assert_eq!(forwarding(&ledger), 1, "{}", ledger.story());
    world.gateway.until_no_lease(secs(90));
    world.gateway.verify_ledger().ok();
}

/// How many connections to the target were made to forward.
fn forwarding(ledger: &Ledger) -> usize {
    ledger.all("credential.minted").iter().filter(|entry| entry["detail"]["forwarding"] == true).count()
}

fn recording(world: &World) -> String {
    world.gateway.recordings()[0]["session"].as_str().unwrap().to_owned()
}

#[test]
fn what_no_rule_names_is_refused_with_a_reason_and_opens_nothing() {
    let (named, other) = (Service::echo(), Service::echo());
    let world = world(&[format!("localhost:{}", named.port)]);
    let local = Port::take();
    let ssh = tunnel(&world, &["-L", &format!("{}:localhost:{}", local.number(), other.port)]);
    assert_eq!(through(local.number(), b"never"), b"");
    ssh.until_stderr("tidegate: no forwarding to localhost", PATIENCE);
    let said = close(&world, ssh).ok().err();
    assert!(said.contains("administratively prohibited"), "{said}");
    assert!(said.contains(&format!("it allows: localhost:{}", named.port)), "{said}");
    assert_eq!(other.came(), 0);
    assert_eq!(destinations(&world), [format!("localhost:{}", other.port)]);
    // Not even a connection that could forward was made.
    let ledger = world.gateway.ledger();
    assert_eq!(ledger.count("credential.minted"), 1, "{}", ledger.story());
    let text = world.gateway.export(&recording(&world), "text");
    assert!(text.contains(&format!("refused: localhost:{}: your entitlement", other.port)), "{text}");
}

#[test]
fn without_rules_every_kind_of_forwarding_is_refused() {
    let service = Service::echo();
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let to = format!("localhost:{}", service.port);
    let stdio = world.ssh_command("alice", &["-W", &to], "deploy@web-1", &[]);
    run(stdio, PATIENCE).exited(255).says("it allows no forwarding; ask your admin");
    let (local, socket) = (Port::take(), world.dir().join("local.sock").display().to_string());
    let forward = format!("{}:{to}", local.number());
    let ssh = tunnel(&world, &["-L", &forward, "-L", &format!("{socket}:/run/app.sock")]);
    assert_eq!(through(local.number(), b"never"), b"");
    let mut stream = UnixStream::connect(&socket).unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap_or(0), 0);
    ssh.until_stderr("no forwarding to unix:/run/app.sock", PATIENCE);
    ssh.finish(PATIENCE).ok();
    assert_eq!(service.came(), 0);
}

#[test]
fn remote_agent_and_x11_forwarding_stay_off_and_are_written_down() {
    let service = Service::echo();
    let world = world(&[format!("localhost:{}", service.port)]);
    let remote = format!("4711:localhost:{}", service.port);
    let ssh = world.ssh_command("alice", &["-R", &remote], "deploy@web-1", &["true"]);
    run(ssh, PATIENCE).ok().says("remote port forwarding failed");
    let socket = world.dir().join("agent.sock");
    let mut agent = mortal("KILL", None);
    agent.args(["ssh-agent", "-D", "-a"]).arg(&socket);
    let _agent = Daemon::spawn("ssh-agent", agent, &world.dir().join("agent.log"), Signal::KILL, None);
    wait_until(PATIENCE, "the agent listens", || UnixStream::connect(&socket).ok());
    let agent = format!("IdentityAgent={}", socket.display());
    let more = ["-tt", "-A", "-o", &agent, "-o", "ForwardX11=yes", "-o", "ForwardX11Trusted=yes"];
    let mut ssh = world.ssh_command("alice", &more, "deploy@web-1", &["echo agent=$SSH_AUTH_SOCK display=$DISPLAY."]);
    ssh.env("DISPLAY", "127.0.0.1:99");
    let output = run(ssh, PATIENCE).ok();
    assert!(output.out().contains("agent= display=."), "{}", output.out());
    let said = output.err() + &output.out();
    assert!(said.contains("tidegate: agent forwarding is not supported yet"), "{said}");
    assert!(said.contains("X11 forwarding"), "{said}");
    world.gateway.until_ledger("session.closed", 2, secs(90));
    assert_eq!(destinations(&world), ["X11 forwarding", "agent forwarding", "remote forwarding of localhost:4711"]);
    assert_eq!(service.came(), 0);
}

#[test]
fn dynamic_forwarding_goes_through_the_same_check() {
    let (named, other) = (Service::http(), Service::http());
    let world = world(&[format!("localhost:{}", named.port)]);
    let local = Port::take();
    let ssh = tunnel(&world, &["-D", &local.number().to_string()]);
    let proxy = format!("socks5h://127.0.0.1:{}", local.number());
    let get = |host: &str, port: u16| curl(&["--proxy", &proxy, &format!("http://{host}:{port}/")]);
    for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]"] {
        assert_eq!(get(host, named.port).ok().out(), "a service", "{host}");
    }
    let came = named.came();
    for (host, port) in [
        ("localhost", other.port),
        ("127.0.0.1", other.port),
        ("169.254.169.254", 80),
        ("127.0.0.2", named.port),
        ("0.0.0.0", named.port),
        ("localhost.", named.port),
        ("web-1", named.port),
    ] {
        assert_ne!(get(host, port).code, Some(0), "{host}:{port}");
    }
    // Spellings that curl would put right by itself, as another program may send them.
    for host in ["2130706433", "0x7f.1", "127.1", "0177.0.0.1", "::1%lo", "localhost\n"] {
        assert!(!socks(local.number(), host, named.port), "{host:?}");
    }
    close(&world, ssh);
    assert_eq!((named.came(), other.came()), (came, 0));
    let refused = destinations(&world);
    for named in
        ["169.254.169.254:80".to_owned(), format!("localhost:{}", other.port), format!("2130706433:{}", named.port)]
    {
        assert!(refused.contains(&named), "{named} is not in {refused:?}");
    }
}

/// Whether a SOCKS5 connection (RFC 1928) to a name as it stands gets through: the service says something.
fn socks(proxy: u16, host: &str, port: u16) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", proxy)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[5, 1, 0]).unwrap();
    stream.read_exact(&mut [0; 2]).unwrap();
    let request = [&[5, 1, 0, 3, host.len() as u8], host.as_bytes(), &port.to_be_bytes()[..]].concat();
    stream.write_all(&request).unwrap();
    // OpenSSH says yes before it knows.
    let mut answer = Vec::new();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok();
    stream.read_to_end(&mut answer).ok();
    answer.windows(9).any(|bytes| bytes == b"a service")
}

#[test]
fn a_socket_that_a_rule_names_is_reached_and_no_other() {
    let folder = tidegate_tests::scratch::Scratch::new();
    let (named, other) = (folder.path().join("app.sock"), folder.path().join("other.sock"));
    for path in [&named, &other] {
        let listener = UnixListener::bind(path).unwrap();
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                stream.write_all(b"a socket").ok();
            }
        });
    }
    let world = world(&[format!("unix:{}", named.display())]);
    let to = |path: &std::path::Path| {
        let local = world.dir().join(format!("local-{}", path.file_name().unwrap().display()));
        let ssh = tunnel(&world, &["-L", &format!("{}:{}", local.display(), path.display())]);
        let mut answer = String::new();
        UnixStream::connect(local).unwrap().read_to_string(&mut answer).ok();
        ssh.finish(PATIENCE).ok();
        answer
    };
    assert_eq!(to(&named), "a socket");
    assert_eq!(to(&other), "");
    assert_eq!(destinations(&world), [format!("unix:{}", other.display())]);
}

#[test]
fn standard_streams_are_carried_both_ways_and_half_closed() {
    let service = Service::echo();
    let world = world(&[format!("localhost:{}", service.port)]);
    let ssh = world.ssh_command("alice", &["-W", &format!("127.0.0.1:{}", service.port)], "deploy@web-1", &[]);
    let mut ssh = Running::start(ssh);
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let (mut stdin, bytes) = (ssh.take_stdin(), sent.clone());
    let writer = thread::spawn(move || stdin.write_all(&bytes));
    let output = ssh.end(PATIENCE).ok();
    writer.join().unwrap().unwrap();
    assert!(output.stdout == sent, "{} of {} bytes came back", output.stdout.len(), sent.len());
    // Nobody listens there any more.
    let dead = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let world = self::world(&[format!("localhost:{dead}")]);
    let ssh = world.ssh_command("alice", &["-W", &format!("localhost:{dead}")], "deploy@web-1", &[]);
    run(ssh, PATIENCE).exited(255).says("connect failed: tidegate: web-1 could not connect to localhost");
    assert_eq!(destinations(&world), Vec::<String>::new(), "that was no refusal");
}

#[test]
fn two_hundred_connections_go_through_one_forwarding() {
    let service = Service::echo();
    let world = world(&[format!("localhost:{}", service.port)]);
    let local = Port::take();
    let ssh = tunnel(&world, &["-L", &format!("{}:localhost:{}", local.number(), service.port)]);
    let (port, next) = (local.number(), Arc::new(AtomicUsize::new(0)));
    let workers: Vec<_> = (0..10)
        .map(|_| {
            let next = next.clone();
            thread::spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= 200 {
                        return;
                    }
                    let sent = format!("{number} ").repeat(2000).into_bytes();
                    assert!(through(port, &sent) == sent, "connection {number}");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!(service.came(), 200);
    assert_eq!(close(&world, ssh).ok().err(), "");
    let forwards = events(&world).iter().filter(|event| event.to_string().contains("\"forward\"")).count();
    assert_eq!(forwards, 200);
    // Those that came one after the other had one connection to the target after the other's.
    let made = forwarding(&world.gateway.ledger());
    assert!(made < 100, "{made} connections to the target");
    world.gateway.until_no_lease(secs(90));
}

#[test]
fn a_live_forwarding_is_cut_when_its_grant_is_revoked_or_ends() {
    let service = Service::waiting();
    let rules = [format!("localhost:{}", service.port)];
    for revoked in [true, false] {
        let forward = format!("logins = [\"deploy\"]\nforward = {rules:?}");
        let world = Plan::new().only_ssh().change("logins = [\"deploy\"]", &forward).start();
        let grant = world.gateway.grant("alice", "web-1", "shell", if revoked { "30m" } else { "20s" });
        let local = Port::take();
        let to = format!("{}:localhost:{}", local.number(), service.port);
        let ssh = Running::start(world.ssh_command("alice", &["-N", "-L", &to], "deploy@web-1", &[]));
        let mut stream = wait_until(PATIENCE, "ssh listens", || TcpStream::connect(("127.0.0.1", local.number())).ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut here = [0; 4];
        stream.read_exact(&mut here).unwrap();
        if revoked {
            world.gateway.revoke(&grant);
        }
        // Open, and then at its end: that it was cut, not that it is slow.
        assert_eq!(stream.read(&mut here).unwrap_or(0), 0);
        let output = ssh.end(PATIENCE);
        assert_ne!(output.code, Some(0));
        let why = if revoked { "your grant was revoked" } else { "your grant ended" };
        assert!(output.err().contains(why), "{}", output.err());
        world.gateway.until_ledger("session.cut", 1, secs(20));
    }
}

/// A host of its own behind the target, with a real web server.
struct Host {
    cable: Cable,
    _server: Daemon,
}

impl Host {
    fn start(world_dir: &std::path::Path) -> Self {
        let cable = Cable::lay(world_dir);
        let page = world_dir.join("page");
        fs::create_dir_all(&page).unwrap();
        fs::write(page.join("index.html"), "the database's page").unwrap();
        let mut command = mortal("KILL", None);
        command.args(["python3", "-m", "http.server", "--bind", &cable.far, "8080"]).current_dir(page);
        let log = world_dir.join("web.log");
        let server = Daemon::spawn("a web server", cable.on_it(&command), &log, Signal::KILL, None);
        wait_until(PATIENCE, "the web server answers", || TcpStream::connect((cable.far.as_str(), 8080)).ok());
        Self { cable, _server: server }
    }
}

#[test]
fn a_name_is_resolved_once_and_never_leads_to_what_is_nobodys() {
    let folder = tidegate_tests::scratch::Scratch::new();
    let host = Host::start(folder.path());
    let hosts = |world: &World, address: &str| {
        // In place: the file is mounted over /etc/hosts in the gateway's namespace.
        let text = format!("127.0.0.1 localhost\n{address} db-1\n");
        fs::write(world.gateway.dir().join("hosts"), text).unwrap();
    };
    let mounts = "touch \"$1/hosts\"; mount --bind \"$1/hosts\" /etc/hosts";
    let world = with(Plan::new().mounts(mounts), &["db-1:8080".to_owned()]);
    hosts(&world, &host.cable.far);
    let local = Port::take();
    let to = format!("{}:db-1:8080", local.number());
    let url = format!("http://127.0.0.1:{}/", local.number());

    // The gateway resolves it, and asks the target for the address; a second answer of the name changes nothing.
    let ssh = tunnel(&world, &["-L", &to]);
    assert_eq!(curl(&[&url]).ok().out(), "the database's page");
    hosts(&world, "127.0.0.1");
    assert_eq!(curl(&[&url]).ok().out(), "the database's page");
    ssh.finish(PATIENCE).ok();
    // (Two connections, if the first one was still closing when the second was asked for.)
    let asked = forwarding(&world.gateway.ledger());
    assert!((1..=2).contains(&asked), "{asked}");
    let first = recording(&world);
    let text = world.gateway.export(&first, "text");
    assert!(text.contains(&format!("forward db-1:8080, at {}:8080", host.cable.far)), "{text}");
    assert!(!text.contains("at 127.0.0.1"), "{text}");

    // In further sessions it would lead to the target's loopback, the gateway's own network, cloud metadata: refused.
    let loopback = TcpListener::bind("127.0.0.1:8080").ok();
    for (nth, address) in
        ["127.0.0.1", "::1", "0.0.0.0", "::ffff:127.0.0.1", "169.254.169.254", &host.cable.near].iter().enumerate()
    {
        hosts(&world, address);
        let ssh = tunnel(&world, &["-L", &to]);
        assert_ne!(curl(&[&url]).code, Some(0), "{address}");
        ssh.until_stderr("where no name may lead", PATIENCE);
        ssh.finish(PATIENCE).ok();
        let ledger = world.gateway.until_ledger("forward.refused", nth + 1, PATIENCE);
        let detail = &ledger.last("forward.refused").unwrap()["detail"];
        assert_eq!(detail["destination"], "db-1:8080");
        // (glibc gives ::1 of a hosts file as 127.0.0.1 too.)
        let seen = detail["address"].as_str().unwrap();
        assert!(seen == address.replace("::ffff:", "") || (*address == "::1" && seen == "127.0.0.1"), "{detail}");
    }
    let ledger = world.gateway.ledger();
    assert_eq!(forwarding(&ledger), asked, "only the first session ever asked the target: {}", ledger.story());
    if let Some(listener) = loopback {
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "somebody came to the loopback");
    }
}

#[test]
fn rules_say_nothing_about_a_target_of_the_same_name() {
    let world = world(&["localhost:1".to_owned()]);
    let port = world.sshd().port();
    let to = format!("web-1:{port}");
    let ssh = world.ssh_command("alice", &["-W", &to], "deploy@web-1", &[]);
    run(ssh, PATIENCE).exited(255).says("your entitlement does not allow it");
    assert_eq!(destinations(&world), [to]);
}
