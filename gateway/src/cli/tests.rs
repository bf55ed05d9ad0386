//! Lines that parse, and lines that do not.

use super::*;
use clap::CommandFactory as _;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn commands_of_the_contract_parse() {
    for line in [
        "tidegate init",
        "tidegate init /tmp/x",
        "tidegate check --config f.toml",
        "tidegate --config f.toml check",
        "tidegate serve",
        "tidegate status --json",
        "tidegate target trust web-1 --part sshd_config",
        "tidegate target test web-1 --login deploy --json",
        "tidegate grant issue --user alice --target web-1 --entitlement shell --for 30m --reason R",
        "tidegate grant import",
        "tidegate grant import -",
        "tidegate grant list --json",
        "tidegate grant show 01234567 --json",
        "tidegate grant revoke 01234567 --reason done",
        "tidegate token issue --user ci --for 30d --scope grants --label ci",
        "tidegate token list --json",
        "tidegate token revoke 0123 --reason leaked",
        "tidegate --gateway https://gate.example.com:8443 --ca ca.pem --token-file t status",
        "tidegate grant list --gateway https://gate.example.com:8443",
        "tidegate lock add --user alice --reason stolen",
        "tidegate lock add --target web-1 --reason incident --until 2026-12-01T08:00:00Z",
        "tidegate lock add --all --reason incident --for 2h",
        "tidegate lock list --json",
        "tidegate lock remove 0123 --reason over",
        "tidegate notify list --json",
        "tidegate notify retry oncall",
        "tidegate session list --json",
        "tidegate session show 0123 --json",
        "tidegate session kill 0123 --reason enough",
        "tidegate recording list --json",
        "tidegate recording verify --all",
        "tidegate recording verify a.tgr b.tgr",
        "tidegate recording play 0123 --identity f --speed 2 --idle-limit 0.5",
        "tidegate recording play 0123 --identity f --at 1:30 --keystrokes --copy g",
        "tidegate recording play 0123 --identity f --plain",
        "tidegate recording export 0123 --format sql --identity f -o out.sql",
        "tidegate recording export 0123 --format asciicast --identity f --keystrokes",
        "tidegate recording export 0123 --format png --at 1:30 --identity f -o out.png",
        "tidegate recording search x --identity f",
        "tidegate lease list --all --json",
        "tidegate lease retry 0123",
        "tidegate lease show 0123 --json",
        "tidegate lease accept 0123 --reason known",
        "tidegate lease sweep --target orders --json",
        "tidegate lease adopt --target orders tg_alice_aaaaaaaa --reason restored",
        "tidegate ledger verify",
        "tidegate ledger tail -n 5 --json",
        "tidegate ledger export",
        "tidegate ca show ssh-user",
        "tidegate ca show ledger",
        "tidegate ca show x509-people",
        "tidegate ca rotate mfa --drop-old",
        "tidegate user mfa enroll alice --replace --json",
        "tidegate user mfa list --json",
        "tidegate user mfa remove alice",
        "tidegate evidence 0123 -o f",
        "tidegate verify f",
        "tidegate reload",
        "tidegate check --inventory",
        "tidegate config schema --included",
        "tidegate target add web-1 ssh 10.0.0.11 --label env=prod --fingerprint SHA256:abc",
        "tidegate target add orders postgres db:5432 --tls-ca ca.pem --admin-user tidegate",
        "tidegate user add alice --ssh-key - --ssh-key b.pub --groups sre,dba --unix-user alice",
        "tidegate why 7K3F-9Q2M --json",
        "tidegate doctor --json",
        "tidegate clock accept --reason ntp",
        "tidegate backup b.tar --with-keys --with-recordings",
        "tidegate restore b.tar --into state --identity auditor.key",
    ] {
        assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for line in [
        "tidegate nonsense",
        "tidegate lease accept 0123",
        "tidegate lock add --reason nothing",
        "tidegate lock add --user alice --all --reason both",
        "tidegate lock add --all",
        "tidegate lock add --all --reason r --for 2h --until 2026-12-01T08:00:00Z",
        "tidegate lease adopt tg_x --reason r",
        "tidegate recording verify",
        "tidegate recording play 0123",
        "tidegate recording play 0123 --identity f --speed 0",
        "tidegate recording play 0123 --identity f --plain --copy g",
        "tidegate recording export 0123 --format mp4 --identity f",
        "tidegate recording export 0123 --format png --identity f",
        "tidegate grant issue --user Alice --target web-1 --entitlement shell --for 30m",
        "tidegate grant issue --user alice --target web-1 --entitlement shell --for 30",
        "tidegate grant issue --user alice --target web-1 --entitlement shell",
        "tidegate target trust a/b",
        "tidegate ca show grants",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}
