//! `[[target]]`: SSH hosts and database servers, and how each proves that it is itself.

use super::{
    fault::KeyRole,
    secret::{Secret, long_enough, secret},
    section::{Section, Spot, TextSpot, Whole},
    value,
};
use jiff::Timestamp;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use secrecy::{ExposeSecret as _, SecretString};
use ssh_key::PublicKey;
use std::{collections::BTreeMap, path::Path, sync::Arc};
use tidegate_ca::x509;
use tidegate_grants::{Kind, RoleName, Target, TargetName};
use tidegate_proxy::protocol::{
    postgres::{Auth, PostgresTarget},
    ssh::{HostTrust, SshTarget},
};

/// All targets. What was faulty beyond its name is only in `by_name`, so that references to it are not faults as well.
#[derive(Default)]
pub(super) struct Targets {
    pub(super) by_name: BTreeMap<TargetName, Target>,
    pub(super) ssh: BTreeMap<TargetName, SshTarget>,
    pub(super) postgres: BTreeMap<TargetName, PostgresTarget>,
    pub(super) secrets: Vec<Secret>,
    /// When the authorities of `tls_ca` end; of several, the last.
    pub(super) ends: BTreeMap<TargetName, Option<Timestamp>>,
}

const SSH_KEYS: [&str; 4] = ["host_key", "host_ca", "host_name", "principal"];
const POSTGRES_KEYS: [&str; 6] =
    ["tls_ca", "auth", "admin_user", "admin_address", "admin_password_file", "admin_password_env"];
/// Where the password of `auth = "scram"` is.
const PASSWORD: [&str; 2] = ["admin_password_file", "admin_password_env"];

pub(super) fn targets(whole: &Whole<'_>) -> Targets {
    let mut targets = Targets::default();
    for section in whole.sections("target") {
        let name = section
            .need("name", section.text("name"), "write name = \"web-1\"")
            .and_then(|name| name.parse(str::parse::<TargetName>, "choose such a name"));
        let kind = section.need("kind", section.text("kind"), KIND_FIX).and_then(kind);
        let address = section
            .need("address", section.text("address"), ADDRESS_FIX)
            .and_then(|address| address.parse(value::address, ADDRESS_FIX));
        let address = address.map(|address| address.value);
        let labels = labels(&section);
        let named = name.as_ref().map(|name| &name.value);
        let mut of_kind = (None, None);
        match kind {
            Some(Kind::Ssh) => of_kind.0 = ssh(&section, named, address),
            Some(Kind::Postgres) => of_kind.1 = postgres(&section, named, address, &mut targets),
            None => {
                // Whichever it was meant to be, its own keys are no faults.
                section.pass_over(&SSH_KEYS);
                section.pass_over(&POSTGRES_KEYS);
            }
        }
        section.unknown();
        let (Some(name), Some(kind)) = (name, kind) else { continue };
        if let Some(other) = name.seen("target", name.value.as_str()) {
            let wrong = format!("is the name of another target already ({other})");
            name.fault(wrong, "give each target a name of its own");
            continue;
        }
        targets.ssh.extend(of_kind.0.map(|target| (name.value.clone(), target)));
        targets.postgres.extend(of_kind.1.map(|target| (name.value.clone(), target)));
        targets.by_name.insert(name.value.clone(), Target { name: name.value, kind, labels });
    }
    targets
}

const KIND_FIX: &str = "write kind = \"ssh\" or kind = \"postgres\"";
const ADDRESS_FIX: &str = "write a host and a port, like \"10.0.0.11:22\"";

fn kind(kind: TextSpot<'_>) -> Option<Kind> {
    match kind.value {
        "ssh" => Some(Kind::Ssh),
        "postgres" => Some(Kind::Postgres),
        _ => {
            kind.fault("is not a kind of target", KIND_FIX);
            None
        }
    }
}

fn labels(section: &Section<'_>) -> BTreeMap<String, String> {
    let pairs = section.pairs("labels").map(|pairs| pairs.value).unwrap_or_default();
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.value.to_owned())).collect()
}

fn ssh(section: &Section<'_>, name: Option<&TargetName>, address: Option<String>) -> Option<SshTarget> {
    section.misplaced(&POSTGRES_KEYS, "belongs to a target of kind \"postgres\"", "take it out, or change the kind");
    let host = host(section, address.as_deref());
    let principal = match section.text("principal") {
        Some(principal) => principal_of(&principal),
        None => Some("{login}@{target}".to_owned()),
    };
    Some(SshTarget { name: name?.clone(), address: address?, host: host?, principal: principal? })
}

const HOST_FIX: &str = "write the host's own key, as `ssh-keyscan HOST` on a network you trust or its ssh_host_ed25519_key.pub \
                        says, or host_ca = \"…\"; there is no trust on first use";

/// `host_key` or `host_ca`, exactly one of them.
fn host(section: &Section<'_>, address: Option<&str>) -> Option<HostTrust> {
    let (keys, authorities) = (section.text_or_texts("host_key"), section.text_or_texts("host_ca"));
    let name = section.text("host_name");
    if let (true, Some(authorities)) = (section.has("host_key"), &authorities) {
        authorities.fault("stands beside host_key", "write one of them: a certificate takes the place of a pinned key");
        return None;
    }
    if section.has("host_ca") {
        let name = match name {
            Some(name) => name.parse(value::public_name, "write the name that is in its certificate")?.value,
            None => dialled(address?).to_owned(),
        };
        let authorities = host_keys(&authorities?)?;
        authorities.iter().for_each(|key| key.plays(KeyRole::HostAuthority));
        return Some(HostTrust::Certificate {
            authorities: authorities.into_iter().map(|key| key.value).collect(),
            name,
        });
    }
    if let Some(name) = name {
        name.fault("is of no use without host_ca", "take it out");
    }
    let keys = host_keys(&section.need("host_key", keys, HOST_FIX)?)?;
    Some(HostTrust::Keys(keys.into_iter().map(|key| key.value).collect()))
}

/// The host part of `host:port`.
fn dialled(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// At least one, each a key that a host can have. `None` where one is faulty.
fn host_keys<'a>(keys: &Spot<'a, Vec<TextSpot<'a>>>) -> Option<Vec<Spot<'a, PublicKey>>> {
    if keys.value.is_empty() {
        keys.fault("is empty", HOST_FIX);
        return None;
    }
    let parsed = keys.value.iter().map(|key| key.clone().parse(value::host_key, HOST_FIX));
    parsed.collect::<Vec<_>>().into_iter().collect()
}

/// Without `{login}` one certificate would be good for several logins.
fn principal_of(principal: &TextSpot<'_>) -> Option<String> {
    const FIX: &str = "write \"{login}@{target}\" or \"{login}\"";
    let rest = principal.value.replace("{login}", "").replace("{target}", "");
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"@._:/+-".contains(&b);
    if !principal.value.contains("{login}") {
        principal.fault("does not contain {login}", FIX);
    } else if !rest.bytes().all(ok) || principal.value.len() > 128 {
        principal.fault("holds more than {login}, {target} and A-Z a-z 0-9 @ . _ : / + -", FIX);
    } else {
        return Some(principal.value.to_owned());
    }
    None
}

fn postgres(
    section: &Section<'_>,
    name: Option<&TargetName>,
    address: Option<String>,
    targets: &mut Targets,
) -> Option<PostgresTarget> {
    section.misplaced(&SSH_KEYS, "belongs to a target of kind \"ssh\"", "take it out, or change the kind");
    let admin_address = match section.text("admin_address") {
        Some(primary) => Some(primary.parse(value::address, ADDRESS_FIX)?.value),
        None => None,
    };
    let auth = auth(section, &mut targets.secrets);
    let fix = "name the PEM file with the CA of the server's certificate; TLS is verify-full, always";
    let roots = section
        .need("tls_ca", section.text("tls_ca"), fix)
        .and_then(|file| file.clone().parse(|_| roots(&file.path()), fix).map(|roots| roots.value));
    let roots = roots.map(|(roots, end)| {
        targets.ends.extend(name.map(|name| (name.clone(), end)));
        roots
    });
    let admin = section
        .need("admin_user", section.text("admin_user"), "write admin_user = \"tidegate\"")
        .and_then(|user| user.parse(str::parse::<RoleName>, "write the gateway's login on this target"));
    Some(PostgresTarget {
        name: name?.clone(),
        address: address?,
        admin_address,
        roots: Arc::new(roots?),
        admin_user: admin?.value.to_string(),
        auth: auth?,
    })
}

/// `auth`, and the password that comes with `"scram"`. `None` has said why.
fn auth(section: &Section<'_>, secrets: &mut Vec<Secret>) -> Option<Auth> {
    let way = section.text("auth");
    match way.as_ref().map_or("cert", |way| way.value) {
        "cert" => {
            let fix = "take it out, or write auth = \"scram\"";
            section.misplaced(&PASSWORD, "belongs to auth = \"scram\": with certificates there is no password", fix);
            Some(Auth::Certificate)
        }
        "scram" => {
            let fix = "name a file of mode 0600 with the password of admin_user, of 16 characters or more \
                       (admin_password_file), or an environment variable that holds it (admin_password_env)";
            let held = secret(section, PASSWORD, fix, password)?;
            let why = format!("password of the gateway's own login on the {}", section.name());
            secrets.push(Secret { place: held.place, why });
            Some(Auth::Scram(held.value))
        }
        _ => {
            section.pass_over(&PASSWORD);
            way?.fault("is not a way to log in", "write \"cert\" or \"scram\"");
            None
        }
    }
}

fn password(bytes: &[u8]) -> Result<SecretString, String> {
    let bytes = long_enough(bytes, 16)?;
    let text =
        std::str::from_utf8(bytes.expose_secret()).ok().filter(|text| text.bytes().all(|b| b.is_ascii_graphic()));
    // Any other character would be prepared (RFC 4013), by the server perhaps in another way than by us.
    let text = text.ok_or("holds more than printable ASCII without blanks")?;
    Ok(SecretString::from(text))
}

/// The authorities, and when the last of them ends.
fn roots(file: &Path) -> Result<(RootCertStore, Option<Timestamp>), String> {
    let shown = file.display();
    let pem = std::fs::read(file).map_err(|cause| format!("{shown} cannot be read: {cause}"))?;
    let (mut roots, mut end) = (RootCertStore::empty(), None);
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| format!("{shown} is not a PEM file"))?;
        end = end.max(x509::ends(&certificate));
        roots.add(certificate).map_err(|cause| format!("{shown} holds a certificate that is no CA: {cause}"))?;
    }
    if roots.is_empty() { Err(format!("{shown} holds no certificate")) } else { Ok((roots, end)) }
}
