//! The first packets, right and wrong.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use proptest::prelude::*;

fn packet(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
        body.extend(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    body
}

fn started(parameters: &[(&str, &str)]) -> Result<Startup, StartupError> {
    match parse(&packet(Version::OLDEST.word(), parameters))? {
        First::Start(start) => Ok(start),
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_are_told_apart() {
    assert_eq!(parse(&ssl_request()[4..]), Ok(First::Ssl));
    assert_eq!(parse(&80_877_104u32.to_be_bytes()), Ok(First::GssEnc));
    for length in [4, 5, 32, 256] {
        let key = CancelKey { process: 7, secret: vec![0x80; length] };
        assert_eq!(parse(&cancel_request(&key)[4..]), Ok(First::Cancel(key)));
    }
    for length in [0, 3, 257] {
        let key = CancelKey { process: 7, secret: vec![1; length] };
        assert_eq!(parse(&cancel_request(&key)[4..]), Err(StartupError::Malformed));
    }
    assert_eq!(parse(&[ssl_request()[4..].to_vec(), vec![0]].concat()), Err(StartupError::Malformed));
}

#[test]
fn lengths_that_no_packet_has_are_refused() {
    for length in [0u32, 3, 4, 7, 10_001, 0x8000_0000, u32::MAX] {
        assert_eq!(body_length(length.to_be_bytes()), Err(StartupError::Length(length)));
    }
    assert_eq!(body_length(8u32.to_be_bytes()), Ok(4));
}

#[test]
fn what_psql_sends_is_accepted() {
    let start = started(&[
        ("user", "alice"),
        ("database", "orders/shop"),
        ("application_name", "psql"),
        ("client_encoding", "UTF8"),
    ]);
    let start = start.unwrap();
    assert_eq!((start.user.as_str(), start.database.as_deref()), ("alice", Some("orders/shop")));
    assert_eq!(start.settings.len(), 2);
    assert_eq!(start.negotiate, None);
}

#[test]
fn settings_are_taken_by_allow_list_and_spelled_as_the_server_does() {
    let start = started(&[("user", "a"), ("datestyle", "ISO"), ("tidegate.reason", "x"), ("TIMEZONE", "UTC")]).unwrap();
    let settings: Vec<_> = start.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(settings, [("DateStyle", "ISO"), ("TimeZone", "UTC")]);
    for name in
        ["search_path", "role", "post_auth_delay", "replication", "session_authorization", "local_preload_libraries"]
    {
        assert_eq!(started(&[("user", "a"), (name, "x")]), Err(StartupError::Parameter(name.to_owned())));
    }
}

#[test]
fn duplicates_are_refused_whatever_their_spelling_and_place() {
    let twice = |first: (&'static str, &'static str), second| started(&[("user", "a"), first, second]).unwrap_err();
    assert_eq!(twice(("user", "b"), ("database", "d")), StartupError::Duplicate("user".to_owned()));
    assert_eq!(twice(("database", "b"), ("database", "d")), StartupError::Duplicate("database".to_owned()));
    assert_eq!(twice(("DateStyle", "b"), ("datestyle", "d")), StartupError::Duplicate("DateStyle".to_owned()));
    assert_eq!(twice(("jit", "b"), ("options", "-c jit=off")), StartupError::Duplicate("jit".to_owned()));
}

#[test]
fn options_are_read_as_the_server_reads_them() {
    let start =
        started(&[("user", "a"), ("options", r"-c statement_timeout=5s --lock-timeout=1 -cgeqo=a\ b\\c")]).unwrap();
    let settings: Vec<_> = start.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(settings, [("geqo", r"a b\c"), ("lock_timeout", "1"), ("statement_timeout", "5s")]);
    for (options, error) in [
        ("-c search_path=evil", StartupError::Parameter("search_path".to_owned())),
        ("-c role=owner", StartupError::Parameter("role".to_owned())),
        ("--post-auth-delay=9", StartupError::Parameter("post_auth_delay".to_owned())),
        ("-W 9", StartupError::Options),
        ("-c", StartupError::Options),
        ("-c jit", StartupError::Options),
    ] {
        assert_eq!(started(&[("user", "a"), ("options", options)]), Err(error), "{options}");
    }
}

#[test]
fn control_characters_and_loose_ends_are_refused() {
    assert_eq!(started(&[("user", "al\nice")]), Err(StartupError::Value("user".to_owned())));
    assert_eq!(started(&[("user", "a"), ("jit", "\x1b[2J")]), Err(StartupError::Value("jit".to_owned())));
    assert_eq!(started(&[("database", "d")]), Err(StartupError::NoUser));
    // A NUL inside a name ends it, and what follows is read as the next name.
    assert_eq!(started(&[("user", "alice\0evil")]), Err(StartupError::Parameter("evil".to_owned())));
    let mut behind = packet(Version::OLDEST.word(), &[("user", "a")]);
    behind.push(1);
    assert_eq!(parse(&behind), Err(StartupError::Malformed));
}

#[test]
fn later_minor_versions_are_negotiated_and_other_protocols_refused() {
    let ask = |minor: u32, more: &[(&str, &str)]| {
        let parameters = [&[("user", "a")], more].concat();
        match parse(&packet(Version::OLDEST.word() + minor, &parameters)).unwrap() {
            First::Start(start) => (start.version.word() & 0xffff, start.version.secret_length(), start.negotiate),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask(0, &[]), (0, 4, None));
    assert_eq!(ask(2, &[]), (2, 32, None));
    assert_eq!(ask(3, &[]), (2, 32, Some(vec![])));
    assert_eq!(ask(9999, &[("_pq_.shiny", "1")]), (2, 32, Some(vec!["_pq_.shiny".to_owned()])));
    assert_eq!(ask(0, &[("_pq_.shiny", "1")]), (0, 4, Some(vec!["_pq_.shiny".to_owned()])));
    assert_eq!(parse(&packet(2 << 16, &[])), Err(StartupError::Protocol(2, 0)));
}

#[test]
fn our_own_packet_reads_back() {
    let bytes = start_packet(Version::OLDEST, [("user", "tg_alice_x"), ("database", "shop"), ("jit", "off")]).unwrap();
    let First::Start(start) = parse(&bytes[4..]).unwrap() else { panic!() };
    assert_eq!((start.user.as_str(), start.settings["jit"].as_str()), ("tg_alice_x", "off"));
    assert!(start_packet(Version::OLDEST, [("user", "a\0b")]).is_err());
}

/// A parameter as a client may send it: of the list in any spelling, outside it, or of the protocol itself.
fn parameter() -> impl Strategy<Value = (String, String)> {
    let spelled = (prop::sample::select(SETTINGS.to_vec()), any::<bool>())
        .prop_map(|(name, loud)| if loud { name.to_uppercase() } else { name.to_owned() });
    let other = prop::sample::select(vec!["role", "search_path", "replication", "_pq_.new", "tidegate.note", "jit "]);
    let name = prop_oneof![12 => spelled, 1 => other.prop_map(str::to_owned)];
    let value = prop_oneof![20 => "[ -~äß]{0,20}", 1 => "[ -~]{0,3}[\x01-\x1f][ -~]{0,3}"];
    (name, value)
}

/// What must become of them, said in another way than the parser does: none if they are refused.
fn expected(parameters: &[(String, String)]) -> Option<BTreeMap<String, String>> {
    let mut settings = BTreeMap::new();
    for (name, value) in parameters.iter().filter(|(name, _)| !name.starts_with("_pq_.")) {
        let lower = name.to_lowercase();
        let known = SETTINGS.iter().find(|known| known.to_lowercase() == lower);
        let spelling =
            known.map(|known| (*known).to_owned()).or(name.starts_with("tidegate.").then(|| name.clone()))?;
        let fresh = settings.insert(spelling, value.clone()).is_none();
        if !fresh || value.contains(|c: char| c < ' ') {
            return None;
        }
    }
    settings.retain(|name, _| !name.starts_with("tidegate."));
    Some(settings)
}

proptest! {
    #[test]
    fn exactly_the_settings_of_the_list_pass_each_once(parameters in prop::collection::vec(parameter(), 0..5)) {
        let sent: Vec<(&str, &str)> = [("user", "a")].into_iter()
            .chain(parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()))).collect();
        let read = started(&sent);
        prop_assert_eq!(read.ok().map(|start| start.settings), expected(&parameters));
        // And as options they mean the same.
        let escaped = |text: &str| text.chars().flat_map(|c| ['\\', c]).collect::<String>();
        let words: Vec<String> = parameters.iter().filter(|(name, _)| !name.starts_with("_pq_."))
            .map(|(name, value)| format!("-c {}", escaped(&format!("{name}={value}")))).collect();
        let options = words.join(" ");
        if options.chars().count() < LONGEST_VALUE {
            let read = started(&[("user", "a"), ("options", &options)]);
            prop_assert_eq!(read.ok().map(|start| start.settings), expected(&parameters));
        }
    }

    #[test]
    fn garbage_never_panics(body in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&body);
        let _ = parse(&[Version::OLDEST.word().to_be_bytes().to_vec(), body].concat());
    }
}
