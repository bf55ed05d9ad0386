//! `tidegate.toml` of a test: people, targets, entitlements, as blocks of the file.

use std::path::{Path, PathBuf};

/// The gateway's public name in tests: never resolved, clients are told the address.
pub const PUBLIC_NAME: &str = "gate.test";

/// The file, block by block.
#[derive(Debug, Clone)]
pub struct Config {
    head: String,
    blocks: Vec<String>,
}

impl Config {
    /// One node, both listeners on ports of the kernel's choice. `recipients` is the line of the auditors.
    pub fn new(recipients: &str) -> Self {
        let head = format!(
            "version = 1\nstate_dir = \"state\"\n\n[gateway]\nname = \"gate\"\npublic_names = [\"{PUBLIC_NAME}\"]\n\
             source_addresses = [\"127.0.0.1\"]\ndrain = \"0s\"\n\n[roles]\nadmin = [\"platform\"]\nauditor = [\"audit\"]\n\n\
             [ssh]\nlisten = \"127.0.0.1:0\"\n\n[postgres]\nlisten = \"127.0.0.1:0\"\n\n[recording]\n{recipients}\n"
        );
        Self { head, blocks: Vec::new() }
    }

    /// Adds a block as it stands.
    pub fn block(&mut self, text: impl Into<String>) -> &mut Self {
        self.blocks.push(text.into());
        self
    }

    /// Takes out every block that has this text.
    pub fn without(&mut self, text: &str) -> &mut Self {
        self.blocks.retain(|block| !block.contains(text));
        self
    }

    /// Changes text, wherever it stands.
    pub fn change(&mut self, from: &str, to: &str) -> &mut Self {
        for text in self.blocks.iter_mut().chain([&mut self.head]) {
            *text = text.replace(from, to);
        }
        self
    }

    /// A person.
    pub fn user(&mut self, name: &str, groups: &[&str], key: Option<&Path>) -> &mut Self {
        let mut block = format!("[[user]]\nname = \"{name}\"\ngroups = {groups:?}\n");
        if let Some(key) = key {
            let public = std::fs::read_to_string(key.with_extension("pub")).expect("a public key");
            block += &format!("ssh_keys = [{:?}]\n", public.trim());
        }
        self.block(block)
    }

    /// An SSH target at this loopback port.
    pub fn ssh_target(&mut self, name: &str, port: u16, host_key: &str) -> &mut Self {
        self.block(format!(
            "[[target]]\nname = \"{name}\"\nkind = \"ssh\"\naddress = \"127.0.0.1:{port}\"\nhost_key = \"{host_key}\"\n\
             labels = {{ env = \"prod\" }}\n"
        ))
    }

    /// A PostgreSQL target at this loopback port.
    pub fn postgres_target(&mut self, name: &str, port: u16, tls_ca: &Path) -> &mut Self {
        self.block(format!(
            "[[target]]\nname = \"{name}\"\nkind = \"postgres\"\naddress = \"127.0.0.1:{port}\"\ntls_ca = {tls_ca:?}\n\
             admin_user = \"tidegate\"\n"
        ))
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let mut text = self.head.clone();
        for block in &self.blocks {
            text.push('\n');
            text += block;
        }
        text
    }

    /// Writes the file.
    pub fn write(&self, dir: &Path) -> PathBuf {
        let path = dir.join("tidegate.toml");
        std::fs::write(&path, self.text()).expect("tidegate.toml");
        path
    }
}

/// The entitlements that most tests use. On the SSH target `web-1` a shell; on the PostgreSQL target `orders` reading,
/// writing, and migrating as the owner.
pub const SHELL: &str = "[[entitlement]]\nname = \"shell\"\ngroups = [\"sre\"]\ntargets = { env = \"prod\" }\n\
    logins = [\"deploy\"]\nmax_duration = \"1h\"\n";
/// Reading.
pub const READONLY: &str = "[[entitlement]]\nname = \"readonly\"\ngroups = [\"sre\"]\ntargets = [\"orders\"]\n\
    databases = [\"shop\"]\nroles = [\"shop_reader\"]\nmax_connections = 10\nmax_duration = \"30m\"\n";
/// Writing; what the session creates is quarantined.
pub const READWRITE: &str = "[[entitlement]]\nname = \"readwrite\"\ngroups = [\"sre\"]\ntargets = [\"orders\"]\n\
    databases = [\"shop\"]\nroles = [\"shop_writer\"]\nleftovers = \"quarantine\"\nmax_duration = \"30m\"\n";
/// Migrating.
pub const MIGRATE: &str = "[[entitlement]]\nname = \"migrate\"\ngroups = [\"dba\"]\ntargets = [\"orders\"]\n\
    databases = [\"shop\"]\nroles = [\"shop_writer\"]\nowner = \"shop_owner\"\nmax_duration = \"1h\"\n";
