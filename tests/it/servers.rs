//! The throwaway servers by themselves, without a gateway: if these fail, the machine is to blame, not tidegate.

use std::{fs, process::Command};
use tidegate_tests::{
    Postgres, Sshd,
    postgres::PostgresTrust,
    running::run,
    scratch::Scratch,
    secs,
    sshd::{SshTrust, keygen},
};

#[test]
fn a_throwaway_sshd_takes_a_certificate_and_takes_its_processes_along() {
    let scratch = Scratch::new();
    let (ca, key) = (scratch.path().join("ca"), scratch.path().join("key"));
    keygen(&ca);
    keygen(&key);
    let mut sign = Command::new("ssh-keygen");
    sign.args(["-q", "-s"]).arg(&ca).args(["-I", "a test", "-n", "deploy@web-1", "-V", "-1m:+5m"]);
    run(
        {
            sign.arg(key.with_extension("pub"));
            sign
        },
        secs(20),
    )
    .ok();
    let trust = SshTrust {
        ca: fs::read_to_string(ca.with_extension("pub")).unwrap(),
        sshd_config: "TrustedUserCAKeys /etc/ssh/ca.pub\nAuthorizedPrincipalsFile /etc/ssh/principals/%u\n".into(),
        principals: "deploy@web-1\n".into(),
        penalties: String::new(),
    };
    let mut sshd = Sshd::prepare(&scratch.dir("web-1"));
    sshd.install(&trust, "");
    sshd.start();
    sshd.ready();
    let mut ssh = Command::new("ssh");
    ssh.args([
        "-F",
        "none",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
    ]);
    ssh.arg("-i").arg(&key).args(["-p", &sshd.port().to_string(), "deploy@127.0.0.1"]);
    ssh.arg("nohup setsid sleep 987 >/dev/null 2>&1 & id -un");
    assert_eq!(run(ssh, secs(20)).ok().out(), "deploy");
    assert!(sshd.processes().iter().any(|p| p.contains("sleep 987")), "{:?}", sshd.processes());
    assert!(sshd.log().contains("a test"), "{}", sshd.log());
    sshd.stop();
    assert_eq!(sshd.processes(), Vec::<String>::new());
}

#[test]
fn a_throwaway_postgres_answers_over_tls_and_keeps_others_out() {
    let scratch = Scratch::new();
    let mut postgres = Postgres::prepare(&scratch.dir("orders"));
    let trust = PostgresTrust {
        ca: fs::read_to_string(postgres.tls_ca()).unwrap(),
        postgresql_conf: String::new(),
        pg_hba: "hostssl all tidegate 127.0.0.1/32 cert\n".into(),
        sql: String::new(),
        sql_managed: String::new(),
    };
    postgres.install(&trust, "");
    postgres.start();
    postgres.ready();
    assert_eq!(postgres.ask("shop", "select count(*) from items"), "100");
    assert_eq!(postgres.ask("shop", "select tableowner from pg_tables where tablename = 'items'"), "shop_owner");
    let mut psql = Command::new("psql");
    let ca = postgres.tls_ca();
    psql.arg(format!(
        "host=localhost hostaddr=127.0.0.1 port={} user=tidegate dbname=shop sslmode=verify-full sslrootcert={}",
        postgres.port(),
        ca.display()
    ));
    run(psql, secs(20)).exited(2).says("connection requires a valid client certificate");
}
