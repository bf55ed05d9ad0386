//! Who is vouched for by others: workloads by tokens of their issuer, people by an OpenID provider. Both are real (jose and
//! oidc-provider from npm), and in another process.

mod pages;
mod people;
mod workloads;

use crate::clients::node;
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
};
use tidegate_tests::{
    daemon::{Daemon, Signal, mortal},
    wait_until,
    world::PATIENCE,
};

/// `fixtures/issuer.js`
struct Outside {
    folder: tempfile::TempDir,
    modules: PathBuf,
    daemon: Option<Daemon>,
    /// Of workloads.
    issuer: u16,
    /// Of people.
    provider: u16,
}

impl Outside {
    /// `None`: where the modules could not be had, outside CI.
    fn start() -> Option<Self> {
        let modules = node::modules("oidc-provider")?;
        let folder = tempfile::tempdir_in(tidegate_tests::scratch::base()).unwrap();
        crate::anchor::certificate(folder.path());
        let mut outside = Self { folder, modules, daemon: None, issuer: 0, provider: 0 };
        outside.restart();
        Some(outside)
    }

    /// On the provider's port, if it had one.
    fn restart(&mut self) {
        self.daemon = None;
        let ports = self.folder.path().join("ports");
        let _ = fs::remove_file(&ports);
        let mut command = mortal("KILL", None);
        command
            .arg("node")
            .arg(format!("{}/it/fixtures/issuer.js", env!("CARGO_MANIFEST_DIR")))
            .arg(self.folder.path());
        command.env("NODE_PATH", &self.modules).env("PORT", self.provider.to_string());
        self.daemon = Some(Daemon::spawn("issuer", command, &self.folder.path().join("log"), Signal::KILL, None));
        let text = wait_until(PATIENCE, "the issuer and the provider listen", || fs::read_to_string(&ports).ok());
        let (issuer, provider) = text.split_once(' ').unwrap();
        (self.issuer, self.provider) = (issuer.parse().unwrap(), provider.parse().unwrap());
    }

    fn stop(&mut self) {
        self.daemon = None;
    }

    /// What the test wants of the issuer.
    fn issuer(&self, path: &str, wish: &Value) -> Value {
        ask(self.issuer, path, wish)
    }

    /// What the test wants of the provider.
    fn provider(&self, path: &str, wish: &Value) -> Value {
        ask(self.provider, path, wish)
    }

    /// A token with these claims, signed with this key.
    fn token(&self, kid: &str, claims: &Value) -> String {
        let signed = self.issuer("/test/sign", &json!({ "kid": kid, "claims": claims }));
        signed["token"].as_str().unwrap().to_owned()
    }
}

fn ask(port: u16, path: &str, wish: &Value) -> Value {
    let body = wish.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let begins = answer.find('{').unwrap_or_else(|| panic!("{path}: {answer}"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    let ends = answer.rfind('}').unwrap();
    serde_json::from_str(&answer[begins..=ends]).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
}
