//! What to install on an SSH target, printed by `tidegate target trust`.
//!
//! What always holds: our CA is trusted for the named logins only, each login takes its own principal only, and no other
//! key or password opens them: there is no way around the gate that the gate opened. What the login may reach from the
//! target is as narrow as sshd can say it; the gateway judges each forwarding by itself, and more strictly.

use super::SshTarget;
use crate::trust::Part;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_ca::Keys;
use tidegate_grants::{
    ForwardRules, Login,
    forward::{Host, Rule},
};

const CA_FILE: &str = "/etc/ssh/tidegate_ca.pub";
const PRINCIPALS_FOLDER: &str = "/etc/ssh/tidegate_principals";

/// What to install on the target: parts `ca`, `sshd_config`, `penalties`, and `principals`, one for each login (none, where the
/// certificate's principal is the login itself).
pub fn trust(
    keys: &Keys,
    source_addresses: &[String],
    target: &SshTarget,
    logins: &BTreeMap<Login, ForwardRules>,
) -> Vec<Part> {
    let authority = keys.ssh_user.public_key().to_openssh();
    let authority = authority.unwrap_or_else(|error| format!("# the CA's public key cannot be written: {error}"));
    let mut parts = vec![
        Part {
            name: "ca",
            place: CA_FILE.to_owned(),
            text: format!("# signs tidegate's certificates of a minute\n{authority}\n"),
        },
        Part {
            name: "sshd_config",
            place: "/etc/ssh/sshd_config.d/10-tidegate.conf, then: systemctl reload ssh".to_owned(),
            text: sshd_config(target, logins),
        },
    ];
    parts.push(Part {
        name: "penalties",
        place:
            "/etc/ssh/sshd_config.d/11-tidegate.conf, from OpenSSH 9.8 on (sshd -V says it), then: systemctl reload ssh"
                .to_owned(),
        text: penalties(source_addresses),
    });
    if by_file(target) {
        parts.extend(logins.keys().map(|login| Part {
            name: "principals",
            place: format!("{PRINCIPALS_FOLDER}/{login}"),
            text: principals(target, login, source_addresses),
        }));
    }
    parts
}

/// sshd compares the principal to the login by itself only if there is nothing else in it.
fn by_file(target: &SshTarget) -> bool {
    target.principal != "{login}"
}

fn principals(target: &SshTarget, login: &Login, source_addresses: &[String]) -> String {
    let principal = target.principal.replace("{login}", login.as_str()).replace("{target}", target.name.as_str());
    format!(
        "# only certificates for this login on this target, and only from the gateway: a certificate for another\n\
         # target, or one that was carried away, opens nothing here\n\
         from=\"{}\" {principal}\n",
        source_addresses.join(",")
    )
}

fn sshd_config(target: &SshTarget, logins: &BTreeMap<Login, ForwardRules>) -> String {
    let mut text = format!(
        "# tidegate: {target}. The first value that sshd reads is the one that counts: keep this file first.\n\
         \n\
         # each channel of a session is a connection of its own, and all come from the gateway's address\n\
         MaxStartups 100:30:200\n",
        target = target.name,
    );
    for (login, forward) in logins {
        text.push_str(&match_block(login, by_file(target), &forwarding(forward)));
    }
    text.push_str("\n# back to everybody, for what other files say\nMatch all\n");
    text
}

/// A file of its own: an older sshd does not start with a setting that it does not know.
fn penalties(source_addresses: &[String]) -> String {
    format!(
        "# OpenSSH 9.8 and later keep an address out for a while after failed logins there: the gateway's is everybody's\n\
         PerSourcePenaltyExemptList {}\n",
        source_addresses.join(",")
    )
}

/// What the parts say for this login: sshd's settings with their values, for a comparison.
pub(super) fn settings(parts: &[Part], login: &Login) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    for part in parts.iter().filter(|part| ["sshd_config", "penalties"].contains(&part.name)) {
        let mut holds = true;
        for line in part.text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let Some((key, value)) = line.split_once(' ') else { continue };
            if key == "Match" {
                holds = value.strip_prefix("User ") == Some(login.as_str());
            } else if holds {
                settings.push((key.to_owned(), value.trim().to_owned()));
            }
        }
    }
    settings
}

fn match_block(login: &Login, by_file: bool, forwarding: &str) -> String {
    let principals = if by_file {
        format!(
            "    # which principals this login takes; without it, any host that trusts this CA would do\n    AuthorizedPrincipalsFile {PRINCIPALS_FOLDER}/%u\n"
        )
    } else {
        String::new()
    };
    format!(
        "\n\
         Match User {login}\n\
         \x20   # our CA, for this login alone\n\
         \x20   TrustedUserCAKeys {CA_FILE}\n\
         {principals}\
         \x20   # a key that somebody adds would be a way around the gate\n\
         \x20   AuthorizedKeysFile none\n\
         \x20   AuthorizedKeysCommand none\n\
         \x20   # so would a password\n\
         \x20   PasswordAuthentication no\n\
         \x20   KbdInteractiveAuthentication no\n\
         \x20   HostbasedAuthentication no\n\
         \x20   PubkeyAuthentication yes\n\
         \x20   AuthenticationMethods publickey\n\
         \x20   # what the gateway does not carry, nobody needs here\n\
         {forwarding}\
         \x20   AllowAgentForwarding no\n\
         \x20   X11Forwarding no\n\
         \x20   PermitTunnel no\n"
    )
}

/// A range of ports up to this is written out: sshd knows single ports, or all of a host.
const MOST_LISTED: u32 = 16;

/// sshd compares hosts as texts, and the gateway asks for addresses: what a name leads to is known only then.
fn forwarding(rules: &ForwardRules) -> String {
    let mut hosts = BTreeSet::new();
    for rule in rules.rules() {
        let Rule::Tcp { host, ports } = rule else {
            return "    # sshd cannot name a socket, and with a list of hosts it would refuse each: the gateway judges alone\n\
                    \x20   AllowTcpForwarding local\n\
                    \x20   PermitOpen any\n\
                    \x20   AllowStreamLocalForwarding local\n"
                .to_owned();
        };
        let hosts_of = match host {
            Host::Localhost => vec!["127.0.0.1".to_owned(), "[::1]".to_owned()],
            Host::Address(_) => vec![host.to_string()],
            Host::Name(_) => vec!["*".to_owned()],
        };
        let listed = ports.count() <= MOST_LISTED;
        for host in hosts_of {
            if listed {
                hosts.extend((ports.first()..=ports.last()).map(|port| format!("{host}:{port}")));
            } else {
                hosts.insert(format!("{host}:*"));
            }
        }
    }
    if hosts.is_empty() {
        return "    AllowTcpForwarding no\n    AllowStreamLocalForwarding no\n".to_owned();
    }
    let hosts: Vec<String> = hosts.into_iter().collect();
    let hosts = hosts.join(" ");
    format!("    AllowTcpForwarding local\n    PermitOpen {hosts}\n    AllowStreamLocalForwarding no\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::HostTrust, *};
    use std::process::Command;

    fn target(principal: &str) -> SshTarget {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
        SshTarget {
            name: "web-1".parse().unwrap(),
            address: "10.0.0.11:22".to_owned(),
            host: HostTrust::Keys(vec![key.parse().unwrap()]),
            principal: principal.to_owned(),
        }
    }

    #[test]
    fn each_login_takes_its_own_principal_from_the_gateway_only() {
        let text = principals(
            &target("{login}@{target}"),
            &"deploy".parse().unwrap(),
            &["10.0.0.5".to_owned(), "2001:db8::5".to_owned()],
        );
        assert_eq!(text.lines().last(), Some("from=\"10.0.0.5,2001:db8::5\" deploy@web-1"));
    }

    /// The server of this machine judges: `sshd -T` reads the file and says what would hold for a login.
    #[test]
    fn sshd_accepts_the_configuration_and_closes_every_other_way_in() {
        let folder = tempfile::tempdir().unwrap();
        let _ = std::fs::create_dir_all("/run/sshd"); // sshd wants it, and a container has none before its first start
        let key = folder.path().join("host");
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
        assert!(made.success());
        let rules =
            ["localhost:8000-8003", "db-1:5432", "[fd00::7]:1024-65535"].map(|rule| rule.parse::<Rule>().unwrap());
        let logins = BTreeMap::from([
            ("deploy".parse().unwrap(), ForwardRules::default()),
            ("root".parse().unwrap(), rules.into_iter().collect()),
            ("docker".parse().unwrap(), ForwardRules::from_iter(["unix:/run/app.sock".parse::<Rule>().unwrap()])),
        ]);
        let config = folder.path().join("sshd_config");
        let ours = sshd_config(&target("{login}@{target}"), &logins);
        std::fs::write(&config, format!("HostKey {}\n{ours}PasswordAuthentication yes\n", key.display())).unwrap();
        let holds = |user: &str| {
            let spec = format!("user={user},host=h,addr=10.0.0.5");
            let run = Command::new("/usr/sbin/sshd").args(["-T", "-C", &spec, "-f"]).arg(&config).output().unwrap();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            String::from_utf8(run.stdout).unwrap().to_lowercase()
        };
        let deploy = holds("deploy");
        for line in [
            "trustedusercakeys /etc/ssh/tidegate_ca.pub",
            "authorizedprincipalsfile /etc/ssh/tidegate_principals/%u",
            "authorizedkeysfile none",
            "passwordauthentication no",
            "kbdinteractiveauthentication no",
            "authenticationmethods publickey",
            "allowtcpforwarding no",
            "allowstreamlocalforwarding no",
            "maxstartups 100:30:200",
        ] {
            assert!(deploy.lines().any(|l| l == line), "{line} does not hold for deploy");
        }
        let root = holds("root");
        let open = "permitopen *:5432 127.0.0.1:8000 127.0.0.1:8001 127.0.0.1:8002 127.0.0.1:8003 [::1]:8000 [::1]:8001 \
                    [::1]:8002 [::1]:8003 [fd00::7]:*";
        for line in [open, "allowtcpforwarding local", "allowstreamlocalforwarding no"] {
            assert!(root.lines().any(|l| l == line), "{line} does not hold for root: {root}");
        }
        let docker = holds("docker");
        for line in ["permitopen any", "allowtcpforwarding local", "allowstreamlocalforwarding local"] {
            assert!(docker.lines().any(|l| l == line), "{line} does not hold for docker: {docker}");
        }
        let other = holds("somebody");
        assert!(other.contains("trustedusercakeys none") && other.contains("passwordauthentication yes"));
    }
}
