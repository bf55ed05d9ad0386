# shellcheck shell=bash
# Throwaway servers for deploy/quickstart and deploy/bench: sourced, not run. Everything lives in the folder $dir, on
# loopback, and is gone when the script ends, in whatever way.
#
# As root, sshd runs in namespaces of its own with an account `deploy` that exists only there, and PostgreSQL as
# `postgres`. Otherwise both run as whoever you are, and your own name is the login.

export PATH="$HOME/.cargo/bin:$PATH" LC_ALL=C.UTF-8
bold() { if [ -t 1 ]; then printf '\033[1m%s\033[0m\n' "$*"; else printf '%s\n' "$*"; fi; }
say() { printf '\n'; bold "== $*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

pids=()
clean() {
    local status=$? pid
    trap - EXIT INT TERM
    if [ -n "${gateway:-}" ] && kill "$gateway" 2>/dev/null; then
        for _ in $(seq 100); do # it still tears down what is open on the others
            kill -0 "$gateway" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$gateway" 2>/dev/null || true
    fi
    for pid in "${pids[@]+"${pids[@]}"}"; do
        # `unshare` waits for the first process of its namespaces, and does not listen while it does.
        if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = unshare ]; then
            xargs -r kill -KILL 2>/dev/null <"/proc/$pid/task/$pid/children" || true
        else
            kill "$pid" 2>/dev/null || true
        fi
    done
    for pid in "${pids[@]+"${pids[@]}"}"; do wait "$pid" 2>/dev/null || true; done
    if [ -n "${dir:-}" ]; then
        if [ "$status" != 0 ] && [ -f "$dir/gateway.log" ]; then
            printf '\nfailed; the end of the gateway'"'"'s log:\n' >&2
            tail -n 20 "$dir/gateway.log" >&2
        fi
        rm -rf "$dir"
    fi
    exit "$status"
}

# Installs what is missing, with apt where it can; else says exactly what.
install_needs() {
    command -v cargo >/dev/null || die "cargo is missing: install the Rust toolchain first, https://rustup.rs"
    local missing=()
    need() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || missing+=("$2"); }
    need cc build-essential
    need make build-essential # the allocator
    need cmake cmake # aws-lc-rs, the cryptographic library
    need ssh openssh-client
    need sshd openssh-server
    need openssl openssl
    need psql postgresql-client
    ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing+=(postgresql)
    if [ ${#missing[@]} -gt 0 ]; then
        if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
            die "these packages are missing (Debian's names): ${missing[*]}
as root: apt-get install ${missing[*]}"
        fi
        say "installing ${missing[*]}"
        # The packages would start servers of their own, which nobody asked for.
        local policy=/usr/sbin/policy-rc.d made=
        if [ ! -e $policy ]; then
            printf '#!/bin/sh\nexit 101\n' >$policy
            chmod 755 $policy
            made=1
        fi
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
        [ -z "$made" ] || rm -f $policy
    fi
    pg_bin=$(dirname "$(find /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1)")
}

built() { # where cargo puts what it builds for release
    echo "$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release"
}

build() { # or takes the program that TIDEGATE_BIN names
    tidegate=${TIDEGATE_BIN:-}
    [ -z "$tidegate" ] || return 0
    say "building tidegate (the first time takes some minutes)"
    cargo build --release -p tidegate --bin tidegate
    tidegate="$(built)/tidegate"
    [ -x "$tidegate" ] || die "$tidegate is not there"
}

make_dir() {
    dir=$(mktemp -d "/tmp/tidegate-$1.XXXXXX")
    trap clean EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    chmod 755 "$dir"
    mkdir "$dir/gate" "$dir/etc-ssh" "$dir/home" "$dir/pg"
    if [ "$(id -u)" = 0 ]; then
        pg_user=postgres
        if unshare --mount --pid --fork true 2>/dev/null; then
            login=deploy
        else
            login=root # no namespaces here: sshd without an account of its own
            mkdir -p /run/sshd
        fi
    else
        pg_user=
        login=$(id -un)
        printf 'You are not root: sshd and PostgreSQL run as %s, who is also the login on the target.\n' "$login"
    fi
}

free_port() { # below the range of outgoing connections
    local port
    for _ in $(seq 200); do
        port=$((20000 + RANDOM % 10000))
        case " ${taken:-} " in *" $port "*) continue ;; esac
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            taken="${taken:-} $port"
            free=$port
            return
        fi
    done
    die "no free port on loopback"
}

until_open() { # until_open PORT WHAT LOG
    for _ in $(seq 300); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        sleep 0.1
    done
    cat "$3" >&2
    die "$2 does not listen"
}

# Ends with this script even if it is killed. For `… &` or a subshell: it becomes the command, so that $! is its pid.
mortal() { exec setpriv --pdeathsig "$1" -- "${@:2}"; }

as_postgres() { # the same, as PostgreSQL's account
    if [ -n "$pg_user" ]; then
        exec env -C / setpriv --reuid "$pg_user" --regid "$pg_user" --init-groups --pdeathsig QUIT -- "$@"
    else
        exec env -C / setpriv --pdeathsig QUIT -- "$@"
    fi
}

# prepare_sshd: host key, account and port, which the gateway's configuration needs.
prepare_sshd() {
    ssh-keygen -q -t ed25519 -N '' -C '' -f "$dir/etc-ssh/host_key"
    host_key=$(cut -d' ' -f1,2 "$dir/etc-ssh/host_key.pub")
    free_port
    sshd_port=$free
    if [ "$login" = deploy ]; then
        local file
        for file in passwd group shadow; do cat "/etc/$file" >"$dir/$file"; done
        printf 'deploy:x:64017:64017::%s:/bin/bash\n' "$dir/home" >>"$dir/passwd"
        printf 'deploy:x:64017:\n' >>"$dir/group"
        printf 'deploy:*:19000:0:99999:7:::\n' >>"$dir/shadow"
        chown 64017:64017 "$dir/home"
    fi
}

# start_sshd PORT FOLDER LOG: with the sshd_config in FOLDER, which is /etc/ssh to it.
start_sshd() {
    local port=$1 etc=$2 log=$3
    if [ "$login" = deploy ]; then
        # shellcheck disable=SC2016
        mortal KILL unshare --mount --pid --fork --mount-proc --kill-child sh -euc '
            for file in passwd group shadow; do mount --bind "$1/$file" "/etc/$file"; done
            mount --bind "$2" /etc/ssh
            mount -t tmpfs -o mode=755 tmpfs /run
            mount -t tmpfs -o mode=755 tmpfs /var/log
            mkdir -p /run/sshd
            exec /usr/sbin/sshd -D -e -f /etc/ssh/sshd_config' sshd "$dir" "$etc" >>"$log" 2>&1 &
    else
        sed -i "s#/etc/ssh/#$etc/#g" "$etc/sshd_config"
        mortal KILL /usr/sbin/sshd -D -e -f "$etc/sshd_config" >>"$log" 2>&1 &
    fi
    pids+=($!)
    until_open "$port" sshd "$log"
}

# The target web-1, set up from what `tidegate target trust` prints.
start_target_sshd() {
    local etc="$dir/etc-ssh"
    cat >"$etc/sshd_config" <<CONFIG
Port $sshd_port
ListenAddress 127.0.0.1
HostKey /etc/ssh/host_key
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
LogLevel VERBOSE
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
CONFIG
    trust web-1 sshd_config >>"$etc/sshd_config"
    local ca principals
    ca=$(awk 'tolower($1) == "trustedusercakeys" { print $2; exit }' "$etc/sshd_config")
    principals=$(awk 'tolower($1) == "authorizedprincipalsfile" { print $2; exit }' "$etc/sshd_config")
    principals=${principals//%u/$login}
    mkdir -p "$etc/$(dirname "${ca#/etc/ssh/}")" "$etc/$(dirname "${principals#/etc/ssh/}")"
    trust web-1 ca >"$etc/${ca#/etc/ssh/}"
    trust web-1 principals >"$etc/${principals#/etc/ssh/}"
    start_sshd "$sshd_port" "$etc" "$dir/sshd.log"
}

prepare_postgres() {
    free_port
    pg_port=$free
    (
        cd "$dir/pg"
        key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
        # shellcheck disable=SC2086
        openssl req -x509 $key -days 3 -subj "/CN=throwaway CA" -keyout ca.key -out ca.pem \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
        # shellcheck disable=SC2086
        openssl req $key -subj /CN=localhost -keyout server.key -out server.csr
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' >server.ext
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3 -extfile server.ext -out server.pem
        chmod 600 server.key
    ) >"$dir/openssl.log" 2>&1 || { cat "$dir/openssl.log" >&2; die "no certificate for PostgreSQL"; }
    [ -z "$pg_user" ] || chown -R "$pg_user:$pg_user" "$dir/pg"
    (as_postgres "$pg_bin/initdb" -D "$dir/pg/data" -U postgres --no-sync --auth=trust -E UTF8 --locale=C.UTF-8) \
        >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; die "initdb failed"; }
}

superuser() { # superuser DATABASE: SQL on stdin, past the gate
    "$pg_bin/psql" -X -q -At -v ON_ERROR_STOP=1 -h "$dir/pg" -p "$pg_port" -U postgres -d "$1" -f -
}

# The target orders, set up from what `tidegate target trust` prints.
start_target_postgres() {
    trust orders ca >"$dir/pg/client-ca.pem"
    {
        trust orders postgresql_conf
        cat <<CONFIG
listen_addresses = '127.0.0.1'
port = $pg_port
unix_socket_directories = '$dir/pg'
fsync = off
ssl = on
ssl_cert_file = '$dir/pg/server.pem'
ssl_key_file = '$dir/pg/server.key'
ssl_ca_file = '$dir/pg/client-ca.pem'
max_connections = 60
CONFIG
    } >"$dir/pg/data/postgresql.conf"
    {
        echo "local all postgres trust"
        trust orders pg_hba
        echo "host all all 127.0.0.1/32 scram-sha-256"
    } >"$dir/pg/data/pg_hba.conf"
    [ -z "$pg_user" ] || chown -R "$pg_user:$pg_user" "$dir/pg"
    as_postgres "$pg_bin/postgres" -D "$dir/pg/data" >>"$dir/postgres.log" 2>&1 &
    pids+=($!)
    until_open "$pg_port" PostgreSQL "$dir/postgres.log"
    for _ in $(seq 100); do
        if superuser postgres <<<"select 1" >/dev/null 2>&1; then break; fi
        sleep 0.1
    done
    superuser postgres <<'SQL'
create role shop_reader nologin;
create role shop_writer nologin;
create database shop;
SQL
    superuser shop <<'SQL'
create table items (id int primary key, name text not null);
insert into items select n, 'item ' || n from generate_series(1, 100) n;
grant select on items to shop_reader;
grant select, insert, update, delete on items to shop_writer;
grant create on schema public to shop_writer;
SQL
    trust orders sql | superuser postgres
}

admin() { "$tidegate" "$@" --config "$dir/gate/tidegate.toml"; }
trust() { admin target trust "$1" --part "$2"; }

# Keys, an auditor's identity, and a configuration with both targets and the person `you`.
configure_gateway() {
    "$tidegate" init "$dir/gate" >"$dir/init.log" || { cat "$dir/init.log" >&2; die "tidegate init failed"; }
    recipient=$(grep -o 'age1[0-9a-z]\{50,\}' "$dir/gate/tidegate.toml" | head -n 1)
    identity=$(grep -rl '^AGE-SECRET-KEY-1' "$dir/gate" | head -n 1)
    ssh-keygen -q -t ed25519 -N '' -C you -f "$dir/you"
    cat >"$dir/gate/tidegate.toml" <<CONFIG
version = 1
state_dir = "state"

[gateway]
name = "gate"
public_names = ["localhost"]
source_addresses = ["127.0.0.1"]

[roles]
admin = ["platform"]
auditor = ["audit"]

[ssh]
listen = "127.0.0.1:0"

[postgres]
listen = "127.0.0.1:0"

[recording]
recipients = ["$recipient"]

[[user]]
name = "you"
groups = ["sre"]
ssh_keys = ["$(cat "$dir/you.pub")"]

[[user]]
name = "operator"
groups = ["platform"]
unix_user = "$(id -un)"

[[target]]
name = "web-1"
kind = "ssh"
address = "127.0.0.1:$sshd_port"
host_key = "$host_key"

[[target]]
name = "orders"
kind = "postgres"
address = "127.0.0.1:$pg_port"
tls_ca = "$dir/pg/ca.pem"
admin_user = "tidegate"

[[entitlement]]
name = "shell"
groups = ["sre"]
targets = ["web-1"]
logins = ["$login"]
max_duration = "8h"

[[entitlement]]
name = "readwrite"
groups = ["sre"]
targets = ["orders"]
databases = ["shop"]
roles = ["shop_writer"]
max_connections = 20
max_duration = "8h"
CONFIG
    admin check
}

# Starts it, waits for its `ready` line, and writes what clients need.
start_gateway() {
    : >"$dir/ready" # of an earlier one
    mortal TERM "$tidegate" serve --config "$dir/gate/tidegate.toml" >"$dir/ready" 2>>"$dir/gateway.log" &
    gateway=$!
    for _ in $(seq 300); do
        grep -q '^ready' "$dir/ready" && break
        kill -0 "$gateway" 2>/dev/null || die "the gateway ended"
        sleep 0.1
    done
    gate_ssh=$(sed -n 's/^ready.* ssh=[^ ]*:\([0-9]*\).*/\1/p' "$dir/ready")
    gate_pg=$(sed -n 's/^ready.* postgres=[^ ]*:\([0-9]*\).*/\1/p' "$dir/ready")
    [ -n "$gate_ssh" ] && [ -n "$gate_pg" ] || die "no ready line: $(cat "$dir/ready")"
    admin ca show x509 >"$dir/ca.pem"
    admin ca show ssh-host | grep -v '^#' | sed '/^@/!s/^/@cert-authority localhost /' >"$dir/known_hosts"
    cat >"$dir/ssh_config" <<CONFIG
Host gate
    HostName 127.0.0.1
    Port $gate_ssh
    HostKeyAlias localhost
    User you
    IdentityFile $dir/you
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile $dir/known_hosts
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
CONFIG
    cat >"$dir/pg_service.conf" <<CONFIG
[orders]
host=localhost
hostaddr=127.0.0.1
port=$gate_pg
user=you
dbname=orders/shop
sslmode=verify-full
sslrootcert=$dir/ca.pem
CONFIG
    export PGSERVICEFILE="$dir/pg_service.conf" PGPASSFILE="$dir/no-such-file"
}
