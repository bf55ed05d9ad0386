//! A target that is not what it seems: it proves itself with the right key and lets everybody in, and then wants more than
//! a target may have.

use russh::{
    Channel, ChannelId,
    keys::{Certificate, PrivateKey, load_secret_key},
    server::{self, Auth, ChannelOpenHandle, Handle, Msg, Session},
};
use std::sync::Arc;
use tidegate_tests::{Running, World, scratch::Scratch, secs, sshd::keygen, world::Plan};
use tokio::{net::TcpListener, runtime::Runtime, sync::mpsc};

/// What it tried, and whether it got it.
type Attempt = (&'static str, bool);

struct Rogue {
    attempts: mpsc::UnboundedSender<Attempt>,
}

impl server::Handler for Rogue {
    type Error = russh::Error;

    async fn auth_openssh_certificate(&mut self, _: &str, _: &Certificate) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        drop(channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        session.channel_success(id)?;
        if command == b"say nothing" {
            session.data(id, "something all the same\n")?;
            session.eof(id)?;
            return session.close(id);
        }
        if command == b"vanish" {
            return Err(russh::Error::Disconnect);
        }
        tokio::spawn(want_more(session.handle(), id, self.attempts.clone()));
        Ok(())
    }
}

/// Tries to open every kind of channel towards the gateway, and then ends the program as if nothing had been.
async fn want_more(handle: Handle, id: ChannelId, attempts: mpsc::UnboundedSender<Attempt>) {
    let here = "127.0.0.1";
    for (what, got) in [
        ("session", handle.channel_open_session().await.is_ok()),
        ("direct-tcpip", handle.channel_open_direct_tcpip(here, 22, here, 1).await.is_ok()),
        ("direct-streamlocal", handle.channel_open_direct_streamlocal("/run/docker.sock").await.is_ok()),
        ("forwarded-tcpip", handle.channel_open_forwarded_tcpip(here, 22, here, 1).await.is_ok()),
        ("forwarded-streamlocal", handle.channel_open_forwarded_streamlocal("/tmp/x").await.is_ok()),
        ("x11", handle.channel_open_x11(here, 1).await.is_ok()),
        ("agent", handle.channel_open_agent().await.is_ok()),
    ] {
        attempts.send((what, got)).ok();
    }
    handle.data(id, "done\n").await.ok();
    handle.exit_status_request(id, 0).await.ok();
    handle.eof(id).await.ok();
    handle.close(id).await.ok();
}

async fn serve(listener: TcpListener, key: PrivateKey, attempts: mpsc::UnboundedSender<Attempt>) {
    let config = Arc::new(server::Config { keys: vec![key], ..server::Config::default() });
    while let Ok((stream, _)) = listener.accept().await {
        let (config, rogue) = (config.clone(), Rogue { attempts: attempts.clone() });
        tokio::spawn(async move {
            if let Ok(running) = server::run_stream(config, stream, rogue).await {
                running.await.ok();
            }
        });
    }
}

/// A world with the rogue as target `web-2`.
fn world(runtime: &Runtime) -> (World, mpsc::UnboundedReceiver<Attempt>) {
    let scratch = Scratch::new();
    let key = scratch.path().join("host_key");
    keygen(&key);
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (attempts, seen) = mpsc::unbounded_channel();
    runtime.spawn(serve(listener, load_secret_key(&key, None).unwrap(), attempts));
    let block = format!(
        "[[target]]\nname = \"web-2\"\nkind = \"ssh\"\naddress = \"127.0.0.1:{port}\"\nhost_key = \"{}\"\n\
         labels = {{ env = \"prod\" }}\n",
        public.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    );
    let world = Plan::new().only_ssh().block(block).start();
    world.gateway.grant("alice", "web-2", "shell", "30m");
    (world, seen)
}

#[test]
fn a_target_that_never_says_how_a_program_ended_is_no_broken_connection_and_one_that_vanishes_is() {
    let runtime = Runtime::new().unwrap();
    let (world, _seen) = world(&runtime);
    let silent = world.ssh("alice", "deploy@web-2", &["say nothing"]).exited(255);
    assert_eq!(silent.out(), "something all the same");
    assert!(!silent.err().contains("tidegate"), "{}", silent.err());
    world.ssh("alice", "deploy@web-2", &["vanish"]).exited(1).says("tidegate: the target");
}

#[test]
fn every_channel_that_a_target_opens_is_refused() {
    let runtime = Runtime::new().unwrap();
    let (world, mut seen) = world(&runtime);
    let ssh = world.ssh_command("alice", &["-A", "-X"], "deploy@web-2", &["true"]);
    assert_eq!(Running::start(ssh).finish(secs(60)).ok().out(), "done");
    let mut attempts: Vec<Attempt> = Vec::new();
    while attempts.len() < 7 {
        attempts.push(runtime.block_on(seen.recv()).unwrap());
    }
    assert!(attempts.iter().all(|(_, got)| !got), "{attempts:?}");
    world.gateway.until_no_lease(secs(90));
}
