//! Very many sessions that do nothing: what each costs the gateway in memory and descriptors is printed, somebody who comes
//! meanwhile is served, and when all have left, nothing is left.
//!
//! `TIDEGATE_TEST_IDLE` says how many over SSH, and a quarter of it over PostgreSQL; `./tests/run --idle 2000` is how to ask.

use futures::{StreamExt as _, stream};
use russh::{
    ChannelMsg,
    client::{self, Handle},
    keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate},
};
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use ssh_key::PrivateKey;
use std::{sync::Arc, time::Duration};
use tidegate_tests::{
    World,
    config::PUBLIC_NAME,
    secs, wait_until,
    world::{PATIENCE, Plan},
};
use tokio_postgres::{Client, Config, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Handshakes at once: each has a deadline, and a debug build on two busy cores takes its time.
const AT_ONCE: usize = 8;
/// PostgreSQL servers have processes, and few have thousands.
const SHARE: usize = 4;

fn sessions() -> usize {
    std::env::var("TIDEGATE_TEST_IDLE").ok().and_then(|text| text.parse().ok()).unwrap_or(48)
}

struct Anyone;

impl client::Handler for Anyone {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true) // this test is not about who answers
    }
}

/// A shell that waits for its first line. The connection lives as long as this does.
async fn shell(world: &World, key: &Arc<PrivateKey>) -> (Handle<Anyone>, russh::Channel<client::Msg>) {
    let settings = Arc::new(client::Config { inactivity_timeout: None, ..client::Config::default() });
    let mut handle = client::connect(settings, world.gateway.ssh(), Anyone).await.unwrap();
    let key = PrivateKeyWithHashAlg::new(key.clone(), None);
    assert!(handle.authenticate_publickey("deploy@web-1", key).await.unwrap().success());
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.exec(true, "echo here; read line").await.unwrap();
    loop {
        match channel.wait().await.unwrap() {
            ChannelMsg::Data { data } if data.starts_with(b"here") => return (handle, channel),
            ChannelMsg::ExitStatus { .. } | ChannelMsg::Close => panic!("it ended"),
            _ => {}
        }
    }
}

fn database(world: &World) -> (Config, MakeRustlsConnect) {
    let mut config = Config::new();
    config.host(PUBLIC_NAME).hostaddr([127, 0, 0, 1].into()).port(world.gateway.postgres().port());
    config
        .ssl_mode(SslMode::Require)
        .dbname("orders/shop")
        .user("alice~many")
        .password(world.password("alice", "orders"));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(world.client_file("ca.pem")).unwrap()).unwrap();
    (config, MakeRustlsConnect::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

async fn query(config: &Config, tls: &MakeRustlsConnect) -> Client {
    let (client, connection) = config.connect(tls.clone()).await.unwrap();
    tokio::spawn(connection);
    client.simple_query("select 1").await.unwrap();
    client
}

/// Resident memory in KiB, and open descriptors, of the gateway.
fn holds(world: &World) -> (u64, usize) {
    (world.gateway.vm_rss(), world.gateway.descriptors())
}

fn print(what: &str, count: usize, before: (u64, usize), now: (u64, usize)) {
    let each = now.0.saturating_sub(before.0) as f64 / count as f64;
    let descriptors = now.1.saturating_sub(before.1) as f64 / count as f64;
    eprintln!("{count} idle {what} sessions: {each:.1} KiB and {descriptors:.1} descriptors each");
}

fn world(ssh: usize, postgres: usize) -> World {
    let many = format!(
        "[[entitlement]]\nname = \"many\"\ngroups = [\"sre\"]\ntargets = [\"orders\"]\ndatabases = [\"shop\"]\n\
         roles = [\"shop_reader\"]\nmax_connections = {}\nmax_duration = \"2h\"\n",
        postgres + 10
    );
    let mut world = Plan::new()
        .sshd_config(&format!("MaxStartups {0}:30:{0}\n", ssh + 100))
        .postgresql_conf(&format!("max_connections = {}", postgres + 60))
        .block(many)
        // All of them come from one address, and are one person.
        .block("[limits]\nconnections = 20000\nconnections_per_source = 20000\nsessions_per_identity = 20000\nsessions_per_target = 20000\n")
        .start();
    world.config.change("max_duration = \"30m\"", "max_duration = \"2h\"");
    world.restart_gateway();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.grant("alice", "orders", "many", "2h");
    world
}

#[test]
fn thousands_of_idle_sessions_keep_nobody_out_and_leave_nothing() {
    let (ssh, postgres) = (sessions(), sessions().div_ceil(SHARE));
    let world = world(ssh, postgres);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let key = Arc::new(PrivateKey::read_openssh_file(world.client_file("alice")).unwrap());
    let (config, tls) = database(&world);
    // One of each first: what the first costs alone is not each one's.
    runtime.block_on(async { drop((shell(&world, &key).await, query(&config, &tls).await)) });
    world.gateway.until_no_lease(secs(150));
    let empty = holds(&world);
    let shells: Vec<_> =
        runtime.block_on(stream::iter(0..ssh).map(|_| shell(&world, &key)).buffer_unordered(AT_ONCE).collect());
    let with_shells = holds(&world);
    print("SSH", ssh, empty, with_shells);
    let clients: Vec<_> =
        runtime.block_on(stream::iter(0..postgres).map(|_| query(&config, &tls)).buffer_unordered(AT_ONCE).collect());
    print("PostgreSQL", postgres, with_shells, holds(&world));
    assert_eq!(world.gateway.leases().len(), ssh + postgres);
    assert_eq!(world.exec("alice", "echo hi").ok().out(), "hi");
    assert_eq!(world.psql("alice~many", "select 'hi'").ok().out(), "hi");
    runtime.block_on(async {
        drop(clients);
        drop(shells);
    });
    let patience = PATIENCE + secs(120) + Duration::from_millis(200 * (ssh + postgres) as u64);
    world.gateway.until_no_lease(patience);
    let sshd = world.sshd.as_ref().unwrap();
    wait_until(secs(60), "the shells are gone", || sshd.processes().is_empty().then_some(()));
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
    let after = holds(&world);
    eprintln!("afterwards: {} to {} KiB, {} to {} descriptors", empty.0, after.0, empty.1, after.1);
    assert!(after.1 <= empty.1 + 24, "from {} to {} descriptors", empty.1, after.1);
    world.gateway.verify_ledger().ok();
}
