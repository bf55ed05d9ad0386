#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use proptest::prelude::*;

fn rules(texts: &[&str]) -> ForwardRules {
    texts.iter().map(|text| text.parse::<Rule>().unwrap_or_else(|e| panic!("{text} {e}"))).collect()
}

fn allows(rules: &ForwardRules, host: &str, port: u32) -> bool {
    Destination::tcp(host, port).is_ok_and(|destination| rules.allows(&destination))
}

#[test]
fn a_destination_is_allowed_by_host_and_port_as_written() {
    let rules = rules(&["localhost:8000-8999", "db-1:5432", "10.0.0.7:443", "[fd00::7]:443"]);
    for (host, port) in [
        ("localhost", 8000),
        ("LOCALHOST", 8999),
        ("127.0.0.1", 8500),
        ("::1", 8500),
        ("0:0::1", 8500),
        ("::ffff:127.0.0.1", 8500),
        ("db-1", 5432),
        ("DB-1", 5432),
        ("10.0.0.7", 443),
        ("::ffff:10.0.0.7", 443),
        ("::ffff:a00:7", 443),
        ("fd00::7", 443),
        ("fd00:0:0::0007", 443),
    ] {
        assert!(allows(&rules, host, port), "{host}:{port}");
    }
    for (host, port) in [
        ("localhost", 7999),
        ("localhost", 9000),
        ("127.0.0.2", 8500),
        ("db-1", 5433),
        ("db-10", 5432),
        ("db-1.", 5432),
        ("db-1.example.com", 5432),
        ("10.0.0.8", 443),
        ("fd00::8", 443),
        ("::", 8500),
        ("0.0.0.0", 8500),
        ("169.254.169.254", 80),
        ("localhost", 8000 + 65536),
        ("localhost", 0),
    ] {
        assert!(!allows(&rules, host, port), "{host}:{port}");
    }
    assert!(!allows(&ForwardRules::default(), "localhost", 80));
}

#[test]
fn odd_spellings_of_hosts_have_no_meaning() {
    for odd in [
        "",
        ".",
        "..",
        "db-1.",
        ".db-1",
        "db..1",
        "-db",
        "db-",
        "db_1",
        "db 1",
        "db-1\n",
        "db\0",
        "dbé",
        "*",
        "%",
        "a/b",
        "a@b",
        "[::1]",
        "::1%lo",
        "fe80::1%eth0",
        "fe80::1%25eth0",
        "::1.",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0x7f.1",
        "0177.0.0.1",
        "127.0.0.01",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.0x4",
        "0x",
        "a.0x",
        "10",
        "db.10",
        "0",
        "::ffff:127.1",
        "1:2:3:4:5:6:7:8:9",
        "evil.localhost",
        "LOCALHOST.localhost",
        "１２７.0.0.1",
    ] {
        assert!(odd.parse::<Host>().is_err(), "{odd:?}");
    }
    assert!("a".repeat(64).parse::<Host>().is_err());
    assert!(["ab."; 90].concat().trim_end_matches('.').parse::<Host>().is_err());
    assert_eq!("Db-1.Example.COM".parse::<Host>().unwrap().to_string(), "db-1.example.com");
}

#[test]
fn what_a_name_leads_to_is_refused_where_it_is_nobodys_or_everybodys() {
    let rules = rules(&["db-1:5432", "10.0.0.7:5432", "169.254.169.254:80", "localhost:8080"]);
    let hazard = |address: &str, port| rules.judge(address.parse().unwrap(), port, false).err();
    for (address, expected) in [
        ("127.0.0.1", Hazard::Loopback),
        ("127.8.8.8", Hazard::Loopback),
        ("::1", Hazard::Loopback),
        ("::ffff:127.0.0.1", Hazard::Loopback),
        ("0.0.0.0", Hazard::Unspecified),
        ("0.1.2.3", Hazard::Unspecified),
        ("::", Hazard::Unspecified),
        ("169.254.169.254", Hazard::LinkLocal),
        ("::ffff:169.254.169.254", Hazard::LinkLocal),
        ("64:ff9b::169.254.169.254", Hazard::LinkLocal),
        ("2002:a9fe:a9fe::", Hazard::LinkLocal),
        ("fe80::1", Hazard::LinkLocal),
        ("febf::1", Hazard::LinkLocal),
        ("168.63.129.16", Hazard::Metadata),
        ("fd00:ec2::254", Hazard::Metadata),
        ("224.0.0.1", Hazard::Multicast),
        ("ff02::1", Hazard::Multicast),
        ("255.255.255.255", Hazard::Reserved),
        ("240.0.0.1", Hazard::Reserved),
        ("::7f00:1", Hazard::Translated),
        ("::127.0.0.1", Hazard::Translated),
        ("64:ff9b:1::7f00:1", Hazard::Translated),
        ("2001:0:1::", Hazard::Translated),
    ] {
        assert_eq!(hazard(address, 5432), Some(expected), "{address}");
    }
    for fine in ["10.0.0.8", "192.168.1.1", "100.64.0.1", "8.8.8.8", "fd00::7", "2001:db8::1", "64:ff9b::10.0.0.8"] {
        assert_eq!(hazard(fine, 5432), None, "{fine}");
    }
    // A rule that names the very address and port takes its word for it.
    assert_eq!(hazard("169.254.169.254", 80), None);
    assert_eq!(hazard("169.254.169.254", 81), Some(Hazard::LinkLocal));
    assert_eq!(hazard("127.0.0.1", 8080), None);
    assert_eq!(rules.judge("10.0.0.8".parse().unwrap(), 5432, true), Err(Hazard::Ours));
    assert_eq!(rules.judge("10.0.0.7".parse().unwrap(), 5432, true), Ok(()));
}

#[test]
fn wrong_rules_say_what_is_wrong() {
    for (text, says) in [
        ("db-1", "HOST:PORT"),
        ("fd00::7:443", "HOST:PORT"),
        ("[10.0.0.7]:443", "HOST:PORT"),
        ("[fd00::7:443", "HOST:PORT"),
        ("*:443", "every host"),
        ("db-1:0", "from 1 to 65535"),
        ("db-1:", "from 1 to 65535"),
        ("db-1:+80", "from 1 to 65535"),
        ("db-1:080", "from 1 to 65535"),
        ("db-1:65536", "from 1 to 65535"),
        ("db-1:90-80", "from 1 to 65535"),
        ("db-1:80-", "from 1 to 65535"),
        ("db-1:*", "from 1 to 65535"),
        ("db-1.:80", "no host"),
        ("127.1:80", "odd spelling"),
        ("x.localhost:80", "write localhost"),
        ("0.0.0.0:80", "unspecified"),
        ("[::]:80", "unspecified"),
        ("224.0.0.1:80", "multicast"),
        ("255.255.255.255:80", "broadcast"),
        ("unix:run/app.sock", "absolute"),
        ("unix:/run/../app.sock", "absolute"),
        ("unix:/run//app.sock", "absolute"),
        ("unix:/run/", "absolute"),
        ("unix:/run/a b", "absolute"),
        ("agent", "not supported yet"),
        ("x11", "not supported yet"),
        ("remote:localhost:9000", "not supported yet"),
    ] {
        let wrong = text.parse::<Rule>().unwrap_err().to_string();
        assert!(wrong.contains(says), "{text}: {wrong}");
    }
    assert!(format!("unix:/{}", "a".repeat(107)).parse::<Rule>().is_err());
    assert!(format!("unix:/{}", "a".repeat(106)).parse::<Rule>().is_ok());
}

#[test]
fn dangerous_rules_are_known() {
    let dangers = |text: &str| text.parse::<Rule>().unwrap().dangers().join("; ");
    assert!(dangers("169.254.169.254:80").contains("metadata"));
    assert!(dangers("[fd00:ec2::254]:80").contains("metadata"));
    assert!(dangers("[::ffff:169.254.169.254]:80").contains("metadata"));
    assert!(dangers("localhost:1-65535").contains("65535 ports"));
    assert!(dangers("localhost:1-65535").contains("port 22"));
    assert!(dangers("unix:/var/run/docker.sock").contains("root"));
    for fine in ["localhost:8000-8999", "db-1:5432", "unix:/run/app.sock"] {
        assert_eq!(dangers(fine), "", "{fine}");
    }
}

#[test]
fn a_socket_is_allowed_by_its_very_path() {
    let rules = rules(&["unix:/run/app.sock"]);
    let socket = |path: &str| path.parse().is_ok_and(|path| rules.allows(&Destination::Socket(path)));
    assert!(socket("/run/app.sock"));
    for other in
        ["/run/app.sock2", "/run/./app.sock", "/run//app.sock", "run/app.sock", "/run/app.sock/", "/RUN/app.sock", ""]
    {
        assert!(!socket(other), "{other}");
    }
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("localhost".to_owned()),
        Just("127.0.0.1".to_owned()),
        Just("[::1]".to_owned()),
        Just("db-1".to_owned()),
        Just("10.0.0.7".to_owned()),
        Just("169.254.169.254".to_owned()),
    ]
}

fn some_rules() -> impl Strategy<Value = ForwardRules> {
    let rule =
        (host(), 1_u16..40, 0_u16..10).prop_map(|(host, first, more)| format!("{host}:{first}-{}", first + more));
    let path = Just("unix:/run/app.sock".to_owned());
    let text = prop_oneof![9 => rule, 1 => path];
    proptest::collection::vec(text, 0..6)
        .prop_map(|texts| texts.iter().map(|text| text.parse::<Rule>().unwrap()).collect())
}

proptest! {
    #[test]
    fn rules_are_read_back_as_they_are_shown(rules in some_rules()) {
        let again: ForwardRules = rules.rules().map(|rule| rule.to_string().parse::<Rule>().unwrap()).collect();
        prop_assert_eq!(rules, again);
    }

    #[test]
    fn rules_cover_others_just_when_they_allow_all_that_those_allow(a in some_rules(), b in some_rules()) {
        let hosts = ["localhost", "127.0.0.1", "::1", "db-1", "10.0.0.7", "169.254.169.254"];
        let mut all = hosts.iter().flat_map(|host| (1..60).map(|port| Destination::tcp(host, port).unwrap())).collect::<Vec<_>>();
        all.push(Destination::Socket("/run/app.sock".parse().unwrap()));
        let allowed = all.iter().all(|destination| a.allows(destination) || !b.allows(destination));
        prop_assert_eq!(a.covers(&b), allowed);
        prop_assert!(a.covers(&a) && a.covers(&ForwardRules::default()));
    }

    #[test]
    fn no_text_is_an_address_in_disguise(text in "[0-9a-fx.:%\\[\\]-]{0,40}", port in any::<u32>()) {
        if let Ok(Destination::Tcp { host, .. }) = Destination::tcp(&text, port) {
            // What has a meaning is the plain spelling of it, or a name that no resolver takes for a number.
            match host {
                Host::Address(address) => prop_assert_eq!(Ok(address), text.parse::<IpAddr>().map(|a| a.to_canonical())),
                Host::Name(name) => prop_assert!(name.as_str().rsplit('.').next().unwrap().bytes().any(|b| b.is_ascii_alphabetic())),
                Host::Localhost => prop_assert!(false, "{}", text),
            }
        }
    }

    #[test]
    fn any_text_is_read_without_harm(text in "\\PC{0,300}") {
        let _ = text.parse::<Rule>();
        let _ = text.parse::<Host>();
        let _ = text.parse::<SocketPath>();
    }
}
