//! Ansible, over OpenSSH with its ControlPersist: facts, a tree, failing commands, fifty tasks.

use super::{Clients, DOOR, GATE, LONG, python::interpreter};
use std::{fs, path::Path, process::Command};
use tidegate_tests::running::run;

/// `HOME` is for the test to fill in.
const FACTS_AND_FILES: &str = r#"
- hosts: all
  gather_facts: true
  tasks:
    - name: facts name the login
      assert: { that: ["ansible_facts.system == 'Linux'", "ansible_facts.user_id == 'deploy'"] }
    - name: a tree is copied
      copy: { src: tree, dest: "HOME/" }
    - name: a command fails as it does there
      command: sh -c "echo said; exit 7"
      register: seven
      failed_when: seven.rc != 7 or seven.stdout != "said"
    - name: a file comes back
      fetch: { src: "HOME/tree/b", dest: fetched, flat: true }
"#;

const FIFTY: &str = r#"
- hosts: all
  gather_facts: false
  tasks:
    - name: fifty
      raw: "echo {{ item }} >>fifty"
      loop: "{{ range(50) | list }}"
"#;

struct Playbooks {
    clients: Clients,
    playbook: std::path::PathBuf,
}

/// The user in the inventory, as Ansible's own documentation has it. A `~` at the start of a path is then nothing: Ansible
/// makes `~deploy@web-1` of it, which no host knows.
const BY_INVENTORY: &str = "ansible_host=GATE ansible_port=PORT ansible_user=DOOR ansible_ssh_private_key_file=KEY \
    ansible_ssh_common_args='-F none -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=BY_CA'";
/// The user in `~/.ssh/config`, so that a plain `web-1` is all that Ansible knows. Everything works.
const BY_SSH_CONFIG: &str = "ansible_ssh_common_args='-F CONFIG'";

impl Playbooks {
    fn start(host: &str) -> Option<Self> {
        let playbook = interpreter()?.with_file_name("ansible-playbook");
        let clients = Clients::start();
        let file = |name: &str| clients.file(name).display().to_string();
        let mut host = host.replace("GATE", GATE).replace("PORT", &clients.port().to_string()).replace("DOOR", DOOR);
        host = host.replace("BY_CA", &file("by_ca")).replace("CONFIG", &file("config"));
        host = host.replace("KEY", &clients.key().display().to_string());
        let inventory = format!("web-1 ansible_python_interpreter=/usr/bin/python3 {host}\n");
        fs::write(clients.home.join("inventory"), inventory).unwrap();
        clients.shell("mkdir tree; echo a >tree/a; head -c 300000 /dev/urandom >tree/b").ok();
        Some(Self { clients, playbook })
    }

    fn play(&self, text: &str, pipelining: bool) {
        fs::write(self.clients.home.join("play.yml"), text).unwrap();
        let mut play: Command = self.clients.command(&self.playbook);
        play.args(["-i", "inventory", "play.yml"]).env("ANSIBLE_HOME", self.clients.home.join("ansible"));
        play.env("ANSIBLE_PIPELINING", pipelining.to_string())
            .env("ANSIBLE_SSH_RETRIES", "0")
            .env("ANSIBLE_NOCOLOR", "1");
        play.env("ANSIBLE_SSH_CONTROL_PATH_DIR", self.clients.home.join("cp"));
        play.env_remove("ANSIBLE_CONFIG");
        run(play, LONG).ok();
    }
}

impl Drop for Playbooks {
    fn drop(&mut self) {
        // What Ansible leaves running on purpose.
        for socket in fs::read_dir(self.clients.home.join("cp")).into_iter().flatten().flatten() {
            stop_master(&socket.path());
        }
    }
}

fn stop_master(socket: &Path) {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-O", "exit", "-S"]).arg(socket).arg("anything");
    run(ssh, LONG);
}

#[test]
fn ansible_gathers_facts_and_copies_a_tree_without_pipelining() {
    let Some(playbooks) = Playbooks::start(BY_SSH_CONFIG) else { return };
    playbooks.play(&FACTS_AND_FILES.replace("HOME", "~"), false);
    for file in ["a", "b"] {
        let sent = fs::read(playbooks.clients.home.join("tree").join(file)).unwrap();
        assert_eq!(fs::read(playbooks.clients.remote("tree").join(file)).unwrap(), sent, "{file}");
    }
}

#[test]
fn ansible_runs_fifty_tasks_over_one_connection_with_pipelining() {
    let Some(playbooks) = Playbooks::start(BY_INVENTORY) else { return };
    playbooks.play(FIFTY, true);
    let lines = fs::read_to_string(playbooks.clients.remote("fifty")).unwrap();
    assert_eq!(lines.lines().map(|n| n.parse().unwrap()).collect::<Vec<u32>>(), (0..50).collect::<Vec<_>>());
    playbooks.play(&FACTS_AND_FILES.replace("HOME", "{{ ansible_facts.user_dir }}"), true);
    // Both playbooks: one connection that ControlPersist kept, hence one session.
    assert_eq!(playbooks.clients.world.gateway.ledger().count("session.opened"), 1);
}
