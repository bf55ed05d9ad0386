//! Programs that run `ssh` beneath: git, rsync, sshfs.

use super::{Clients, DOOR, assert_same};

#[test]
fn git_clones_and_pushes_by_url_by_path_and_by_host_name() {
    let clients = Clients::start();
    clients
        .shell(&format!(
            "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_SSH_COMMAND=$ssh
             git() {{ command git -c user.name=alice -c user.email=alice@example.com -c init.defaultBranch=main \"$@\"; }}
             $ssh web-1 'git init -q --bare -b main repo.git'
             there=$($ssh web-1 pwd)
             git init -q one; cd one
             head -c 3000000 /dev/urandom >blob; git add blob; git commit -qm first
             git push -q ssh://{DOOR}@gate:$port$there/repo.git main
             cd ..
             git clone -q {DOOR}@gate:repo.git two; cmp one/blob two/blob
             cd two; echo more >more; git add more; git commit -qm second; git push -q origin main
             cd ../one; git pull -q web-1:repo.git main; cmp more ../two/more
             if git clone -q web-1:nowhere.git never 2>err; then exit 9; fi
             grep -q 'nowhere.git' err"
        ))
        .ok();
}

#[test]
fn rsync_mirrors_a_tree_up_and_down_and_deletes_what_is_gone() {
    let clients = Clients::start();
    clients.make_tree();
    clients.shell(&format!("rsync -a --delete -e \"$ssh\" tree/ {DOOR}@gate:mirror/")).ok();
    assert_same(&clients.home.join("tree"), &clients.remote("mirror"));
    clients
        .shell(&format!(
            "rm tree/nothing; echo changed >>'tree/deep/and deeper/große Datei'
             rsync -a --delete -e \"$ssh\" tree/ web-1:mirror/
             echo stale >stale; mkdir back; mv stale back/
             rsync -a --delete -z -e \"$ssh -l {DOOR}\" gate:mirror/ back/
             test -z \"$(rsync -ain --delete --checksum -e \"$ssh\" tree/ web-1:mirror/)\""
        ))
        .ok();
    assert_same(&clients.home.join("tree"), &clients.remote("mirror"));
    assert_same(&clients.home.join("tree"), &clients.home.join("back"));
}

#[test]
fn sshfs_mounts_the_target_where_there_is_fuse() {
    if std::fs::File::options().read(true).write(true).open("/dev/fuse").is_err() {
        eprintln!("SKIPPED: /dev/fuse does not open on this machine");
        return;
    }
    let clients = Clients::start();
    clients.make_tree();
    let script = format!(
        "mkdir mnt
         sshfs -F $config {DOOR}@gate: mnt
         trap 'fusermount3 -u mnt' EXIT
         cp -r tree mnt/; diff -r tree mnt/tree
         mv mnt/tree/nothing mnt/tree/something; rm -r mnt/tree/deep
         test \"$(ls mnt/tree)\" = \"$(printf 'empty\\nsomething')\""
    );
    // In a mount namespace of its own: whatever happens, nothing stays mounted.
    let mut command = clients.command("unshare");
    command.args(["--mount", "bash", "-euc", &script]).env("config", clients.file("config"));
    tidegate_tests::running::run(command, super::LONG).ok();
    assert!(clients.remote("tree/something").exists() && !clients.remote("tree/deep").exists());
}
