//! The pages for people with a browser: a login with code and PKCE, and the answer to a request that a link leads to.

use super::Outside;
use crate::{
    asking,
    clients::node,
    https::{Answer, get, raw, token},
};
use serde_json::{Value, json};
use tidegate_tests::{
    World,
    config::PUBLIC_NAME,
    running::run,
    scratch::Port,
    world::{PATIENCE, Plan},
};

/// carol's group approves; so do those whose group at the provider is `Leads`.
fn plan(outside: &Outside, port: u16) -> Plan {
    let approvals = "[{ from = [\"sales\"] }]";
    let provider = format!(
        "[oidc]\nissuer = \"http://127.0.0.1:{}\"\nclient_id = \"tidegate\"\nclient_secret_file = \"client.secret\"\n\
         groups = {{ Ops = \"sre\", Leads = \"sales\" }}\n",
        outside.provider
    );
    let api = format!("[api]\nlisten = \"127.0.0.1:{port}\"\nurl = \"https://{PUBLIC_NAME}:{port}\"\n");
    outside
        .provider("/test/redirects", &json!({ "redirects": [format!("https://{PUBLIC_NAME}:{port}/login/callback")] }));
    asking::plan(approvals).block(api).block(provider).file("client.secret", "the secret of the client tidegate\n")
}

/// A browser at the gateway: it keeps no cookie but what it is told to send.
fn browse(world: &World, method: &str, path: &str, more: &str, body: &str) -> Answer {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {PUBLIC_NAME}\r\nConnection: close\r\n{more}\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    raw(world, request.as_bytes())
}

fn origin(port: u16) -> String {
    format!("Origin: https://{PUBLIC_NAME}:{port}\r\n")
}

/// What a browser is told to keep, and where it is sent.
fn begun(world: &World, path: &str) -> (String, String) {
    let answer = browse(world, "GET", path, "", "");
    assert_eq!(answer.status, 303, "{answer:?}");
    let cookie = answer.header("set-cookie").unwrap();
    assert!(
        ["__Host-", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/"].iter().all(|part| cookie.contains(part)),
        "{cookie}"
    );
    (cookie.split(';').next().unwrap().to_owned(), answer.header("location").unwrap().to_owned())
}

/// Logs in there, and returns the path that the browser is sent back to.
fn logged_in(outside: &Outside, at: &str, login: &str) -> String {
    let left = outside.provider("/test/visit", &json!({ "at": at, "login": login, "stay": true }));
    let left = left["left"].as_str().unwrap_or_else(|| panic!("{left}")).to_owned();
    left[left.find("/login/callback").unwrap()..].to_owned()
}

fn come_back(world: &World, path: &str, cookie: &str) -> Answer {
    browse(world, "GET", path, &format!("Cookie: other=1; {cookie}\r\n"), "")
}

/// The secret of the form in a page.
fn secret_of(page: &Answer) -> String {
    let after = page.body.split("name=\"page\" value=\"").nth(1).unwrap_or_else(|| panic!("{page:?}"));
    after.split('"').next().unwrap().to_owned()
}

fn request(world: &World) -> String {
    asking::id(world.control("alice", &["request web-1/shell --for 10m --reason <b>fix</b> the disk"]))
}

#[test]
fn a_link_opens_nothing_until_its_reader_has_logged_in_and_then_they_answer_it() {
    let Some(outside) = Outside::start() else { return };
    let port = Port::take();
    let number = port.number();
    let world = plan(&outside, number).start();
    outside.provider("/test/person", &json!({ "login": "7", "preferred_username": "lee", "groups": ["Leads"] }));
    let id = request(&world);
    let link = format!("/approve/{id}");
    // Before the login a request that there is looks like one that there is not.
    let (page, none) =
        (browse(&world, "GET", &link, "", ""), browse(&world, "GET", &link.replace(&id, &"0".repeat(36)), "", ""));
    assert_eq!(page.status, 200);
    assert_eq!(page.body.replace(&id, ""), none.body.replace(&"0".repeat(36), ""));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!page.body.contains("<script") && page.header("x-frame-options") == Some("DENY"), "{page:?}");
    // The login of the one who may answer.
    let (cookie, at) = begun(&world, &format!("/login?request={id}"));
    let back = logged_in(&outside, &at, "7");
    let shown = come_back(&world, &back, &cookie);
    assert!(shown.body.contains("alice") && shown.body.contains("You are</dt><dd>lee"), "{shown:?}");
    assert!(shown.body.contains("&lt;b&gt;fix&lt;/b&gt; the disk"), "what somebody wrote is text: {shown:?}");
    let answer = format!("page={}&answer=approve", secret_of(&shown));
    // Not from another site's page, and not twice.
    for origin in ["", "Origin: null\r\n", "Origin: https://evil.example\r\n"] {
        assert_eq!(browse(&world, "POST", &link, origin, &answer).status, 403, "{origin}");
    }
    let said = browse(&world, "POST", &link, &origin(number), &answer);
    assert!(said.status == 200 && said.body.contains("shell is granted"), "{said:?}");
    assert_eq!(browse(&world, "POST", &link, &origin(number), &answer).status, 403);
    world.exec("alice", "true").ok();
    let grant = world.gateway.list(&["grant", "list"]).remove(0);
    let approval = &grant["approvals"][0];
    assert_eq!((approval["by"].as_str(), approval["proof"].as_str()), (Some("lee"), Some("attested")), "{grant}");
    assert!(come_back(&world, &back, &cookie).status == 403, "a login ends once");
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_login_that_this_browser_did_not_begin_is_nobodys() {
    let Some(outside) = Outside::start() else { return };
    let port = Port::take();
    let world = plan(&outside, port.number()).start();
    outside.provider("/test/person", &json!({ "login": "7", "preferred_username": "lee", "groups": ["Leads"] }));
    let refused = |path: &str, cookie: &str, why: &str| {
        let answer = come_back(&world, path, cookie);
        assert!(answer.status == 403 && answer.body.contains(why), "{path}: {answer:?}");
    };
    // Another browser's cookie, none, another state.
    let (cookie, at) = begun(&world, "/login");
    let (other, _) = begun(&world, "/login");
    refused(&logged_in(&outside, &at, "7"), &other, "not begun in this browser");
    let (_, at) = begun(&world, "/login");
    refused(&logged_in(&outside, &at, "7"), "", "not begun in this browser");
    refused("/login/callback?code=x&state=y", &cookie, "not begun in this browser");
    // Another provider's answer, a code that it did not give, a refusal there.
    let (cookie, at) = begun(&world, "/login");
    let back = logged_in(&outside, &at, "7").replace(&format!("127.0.0.1%3A{}", outside.provider), "evil.example");
    refused(&back, &cookie, "another provider");
    let state_of = |at: &str| at.split("state=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let (cookie, at) = begun(&world, "/login");
    refused(&format!("/login/callback?code=guess&state={}", state_of(&at)), &cookie, "not completed");
    let (cookie, at) = begun(&world, "/login");
    refused(&format!("/login/callback?error=access_denied&state={}", state_of(&at)), &cookie, "not logged in there");
    // Another nonce than was given: the token is of another login.
    let (cookie, at) = begun(&world, "/login");
    let nonce = at.split("nonce=").nth(1).unwrap().split('&').next().unwrap();
    let back = logged_in(&outside, &at.replace(nonce, "another"), "7");
    refused(&back, &cookie, "nonce");
    // A code with another verifier than was announced (PKCE).
    let (cookie, at) = begun(&world, "/login");
    let challenge = at.split("code_challenge=").nth(1).unwrap().split('&').next().unwrap();
    let back = logged_in(&outside, &at.replace(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"), "7");
    refused(&back, &cookie, "not completed");
    assert_eq!(world.gateway.ledger().count("guest.arrived"), 0);
    // And the right one gives a token that does what a login may.
    let (cookie, at) = begun(&world, "/login");
    let page = come_back(&world, &logged_in(&outside, &at, "7"), &cookie);
    let secret = page.body.split("<code>").nth(1).unwrap().split('<').next().unwrap();
    assert_eq!(get(&world, "/v1/grants", secret).json(), json!([]));
    get(&world, "/v1/leases", secret).refused(403);
}

#[test]
fn an_approver_without_a_login_says_who_they_are_by_a_token_and_nobody_answers_their_own() {
    let Some(outside) = Outside::start() else { return };
    let port = Port::take();
    let number = port.number();
    let operator = "groups = [\"platform\"]\nunix_user";
    let world = plan(&outside, number).change(operator, "groups = [\"platform\", \"sales\"]\nunix_user").start();
    let id = request(&world);
    let link = format!("/approve/{id}");
    let show = |token: &str| browse(&world, "POST", &link, &origin(number), &format!("token={token}"));
    // The operator makes tokens, and is an approver: by a token that another made nobody decides.
    let (operator, bob) = (token(&world, "operator", "all"), token(&world, "bob", "all"));
    let (alice, carol) = (token(&world, "alice", "all"), token(&world, "carol", "all"));
    assert_eq!(show("tdg_wrong").status, 403);
    assert_eq!(show(&token(&world, "operator", "grants")).status, 403, "a token that goes so far answers nothing");
    assert_eq!(show(&bob).status, 404, "it is none of bob's business");
    for token in [&alice, &carol] {
        let answer = format!("page={}&answer=approve", secret_of(&show(token)));
        let said = browse(&world, "POST", &link, &origin(number), &answer);
        assert!(said.status == 403 && said.body.contains("nobody decides in another&#39;s name"), "{said:?}");
    }
    let shown = show(&operator);
    let page = secret_of(&shown);
    // What was shown for one request answers no other.
    let other = asking::id(world.control("bob", &["request web-1/shell --for 5m --reason look"]));
    let elsewhere =
        browse(&world, "POST", &format!("/approve/{other}"), &origin(number), &format!("page={page}&answer=approve"));
    assert_eq!(elsewhere.status, 403);
    let no = format!("page={}&answer=deny&reason=not+today", secret_of(&show(&operator)));
    assert!(browse(&world, "POST", &link, &origin(number), &no).body.contains("Denied"));
    assert_eq!(world.gateway.ledger().one("request.denied")["detail"]["by"], "operator");
    // The API itself is as shut to pages as ever.
    assert_eq!(browse(&world, "GET", "/v1/grants", &origin(number), "").status, 403);
    assert_eq!(browse(&world, "POST", &link, &origin(number), &"x".repeat(20_000)).status, 400);
}

#[test]
fn a_real_browser_follows_the_link_logs_in_and_approves() {
    let Some(outside) = Outside::start() else { return };
    let Some(chromium) = node::browser() else { return };
    let port = Port::take();
    let number = port.number();
    let world = plan(&outside, number).start();
    outside.provider("/test/person", &json!({ "login": "7", "preferred_username": "lee", "groups": ["Leads"] }));
    let id = request(&world);
    let link = format!("https://{PUBLIC_NAME}:{number}/approve/{id}");
    let mut browser = node::script("fixtures/browser.js", &outside.modules);
    browser.args([link.as_str(), "7"]).arg(chromium).arg(world.gateway.dir().join("browser"));
    browser.env("HOME", world.gateway.dir());
    let said: Value = serde_json::from_str(&run(browser, 2 * PATIENCE).ok().out()).unwrap();
    let text = |nth: usize| said["texts"][nth].as_str().unwrap().to_owned();
    assert!(text(0).contains("A request awaits an answer") && !text(0).contains("alice"), "{said:#}");
    assert!(text(1).contains("alice") && text(1).contains("<b>fix</b> the disk"), "as text: {said:#}");
    assert!(text(2).contains("shell is granted"), "{said:#}");
    assert!(!text(3).contains("is granted"), "what was answered is not answered again: {said:#}");
    let complaints: Vec<&str> = said["complaints"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let other: Vec<_> = complaints.iter().filter(|one| !one.contains("403")).collect();
    assert!(other.is_empty(), "nothing in it is against its own policy: {said:#}");
    assert!(said["wide"].as_u64().unwrap() <= 320, "it fits a telephone: {said:#}");
    world.exec("alice", "true").ok();
    assert_eq!(world.gateway.list(&["grant", "list"]).remove(0)["approvals"][0]["by"], "lee");
}
