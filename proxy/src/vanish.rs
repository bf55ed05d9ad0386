//! A connection to a target that ends when nobody is there any more.
//!
//! TCP alone would not say so: it waits for ever where nothing is under way, and for a quarter of an hour for what was
//! sent and never acknowledged (tcp(7), `tcp_retries2`), and a person would sit before a session that is dead. So an idle
//! connection is probed by the kernel (keep-alive); and where bytes are under way, which keeps the kernel from probing, it
//! is asked how often it has sent them again. What always holds: the target's program sees nothing of either, and one that is alive is
//! never given up, however long it computes or does not read. (`TCP_USER_TIMEOUT` is no way for that reason: it also ends
//! connections to a server that is alive and lets a COPY wait for a lock.)

use rustix::net::sockopt;
use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

/// An idle connection is probed after this,
const IDLE: Duration = Duration::from_secs(15);
/// so often apart,
const APART: Duration = Duration::from_secs(5);
/// and given up after so many probes without an answer.
const PROBES: u32 = 4;
/// What was sent again so often without an acknowledgement, perhaps nobody takes: it is looked at once more after the other,
const SENT_AGAIN: u32 = 5;
/// and if it was sent yet again by then, nobody does. (Each wait is twice the last, but where our own side of the network is
/// down: there they are short.)
const ONCE_MORE: Duration = Duration::from_secs(15);
/// The kernel is asked after the first of these, then at twice the distance each time, up to the other.
const FIRST_LOOK: Duration = Duration::from_secs(30);
const RARELY: Duration = Duration::from_secs(240);

/// Has the kernel probe an idle connection.
pub(crate) fn probe(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, IDLE)?;
    sockopt::set_tcp_keepintvl(stream, APART)?;
    Ok(sockopt::set_tcp_keepcnt(stream, PROBES)?)
}

/// Whether reading failed because the other side cannot be reached any more; else it has hung up.
pub(crate) fn unreachable(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut};
    matches!(error.kind(), TimedOut | HostUnreachable | NetworkUnreachable | NetworkDown)
}

/// A connection whose reads fail with `TimedOut` once its other side has vanished.
#[derive(Debug)]
pub(crate) struct Watched {
    stream: TcpStream,
    /// What begins its line in the kernel's table.
    line: [String; 2],
    /// Something was sent since we last heard something.
    asked: bool,
    look: Pin<Box<Sleep>>,
    distance: Duration,
    /// How often something had been sent again when the kernel was asked last, if that was often.
    suspect: Option<u32>,
}

impl Watched {
    /// From here on.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        probe(&stream)?;
        let line = [stream.local_addr()?, stream.peer_addr()?].map(in_the_table);
        let look = Box::pin(sleep(FIRST_LOOK));
        Ok(Self { stream, line, asked: false, look, distance: FIRST_LOOK, suspect: None })
    }

    /// The connection itself.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    fn look_in(&mut self, distance: Duration) {
        self.distance = distance;
        self.look.as_mut().reset(Instant::now() + distance);
    }

    /// Ready if nobody takes what was sent.
    fn poll_vanished(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.look.as_mut().poll(cx).is_ready() {
            let again = if self.asked { sent_again_now(&self.line) } else { 0 };
            match self.suspect.replace(again) {
                Some(before) if again > before => {
                    self.give_up();
                    return Poll::Ready(());
                }
                _ if again >= SENT_AGAIN => self.look_in(ONCE_MORE),
                _ => {
                    self.suspect = None;
                    self.look_in(if self.asked { (self.distance * 2).min(RARELY) } else { FIRST_LOOK });
                }
            }
        }
        Poll::Pending
    }

    /// What nobody took must not arrive when the network is back: the person was told that it is over. Closing throws it away.
    fn give_up(&self) {
        if let Err(error) = sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)) {
            tracing::debug!(%error, "what was sent may still arrive");
        }
    }

    fn sent(&mut self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(poll, Poll::Ready(Ok(sent)) if sent > 0) {
            if !self.asked || self.distance > FIRST_LOOK {
                self.look_in(FIRST_LOOK); // a closer look goes on: sending alone is no sign of the other side
            }
            self.asked = true;
        }
        poll
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        match Pin::new(&mut me.stream).poll_read(cx, buf) {
            Poll::Pending => me.poll_vanished(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
            heard => {
                (me.asked, me.suspect) = (false, None);
                heard
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let poll = Pin::new(&mut me.stream).poll_write(cx, buf);
        me.sent(poll)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let poll = Pin::new(&mut me.stream).poll_write_vectored(cx, bufs);
        me.sent(poll)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// How often the kernel has sent the same to the other side. If it does not say, TCP's own patience counts.
fn sent_again_now(line: &[String; 2]) -> u32 {
    let table = |name: &str| fs::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
    sent_again(&table("tcp"), line).or_else(|| sent_again(&table("tcp6"), line)).unwrap_or(0)
}

/// How often, if a retransmission is due: `1` among the kernel's timers. (`4` is the probing of a side that does not read.)
/// The columns are those of proc_net_tcp.txt in Linux's documentation.
fn sent_again(table: &str, [local, remote]: &[String; 2]) -> Option<u32> {
    let mut lines = table.lines().map(str::split_whitespace);
    let mut line = lines.find_map(|mut words| (words.nth(1)? == local && words.next()? == remote).then_some(words))?;
    let (timer, again) = (line.nth(2)?, line.next()?);
    let due = timer.split(':').next()? == "01";
    Some(if due { u32::from_str_radix(again, 16).ok()? } else { 0 })
}

/// An address as the table writes it: words of the machine's byte order, in hex.
fn in_the_table(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = octets.as_chunks::<4>().0.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word)));
    format!("{}:{:04X}", words.collect::<String>(), address.port())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    #[tokio::test]
    async fn a_connection_is_found_in_the_kernels_table_and_one_whose_other_side_only_does_not_read_is_not_given_up() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address).await else { continue }; // a machine without IPv6
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (_silent, _) = listener.accept().await.unwrap();
            let line = [stream.local_addr().unwrap(), stream.peer_addr().unwrap()].map(in_the_table);
            let table = if address.starts_with('[') { "/proc/self/net/tcp6" } else { "/proc/self/net/tcp" };
            let mut watched = Watched::new(stream).unwrap();
            // Until it takes no more: the kernel now probes whether the other side has room again.
            let full = async { while watched.write(&[0; 65536]).await.is_ok() {} };
            assert!(tokio::time::timeout(Duration::from_secs(1), full).await.is_err());
            assert_eq!(sent_again(&fs::read_to_string(table).unwrap(), &line), Some(0));
            assert!(watched.asked && sent_again_now(&line) == 0);
        }
    }

    #[test]
    fn what_is_sent_again_and_again_is_counted_and_what_is_probed_is_not() {
        let line = ["0100007F:A5CB".to_owned(), "0200C80A:1538".to_owned()];
        let table = |timer: &str, again: &str| {
            format!(
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
                 0: 0100007F:A5CB 00000000:0000 0A 00000000:00000000 00:00000000 00000009     0\n\
                 1: 0100007F:A5CB 0200C80A:1538 01 00000020:00000000 {timer}:000003E8 {again}     0\n"
            )
        };
        assert_eq!(sent_again(&table("01", "0000000A"), &line), Some(10));
        assert_eq!(sent_again(&table("04", "0000000A"), &line), Some(0));
        assert_eq!(sent_again("", &line), None);
        assert_eq!(sent_again("1: 0100007F:A5CB 0200C80A:1538 01 x", &line), None);
    }
}
