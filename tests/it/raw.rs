//! A PostgreSQL session spoken message by message, through the gate or directly to the same server.
//!
//! The parsers of two other projects, `postgres-protocol` and `pgwire`, must understand each reply: what the gate
//! broke, they would not.

use crate::wire;
use bytes::{Buf, BytesMut};
use pgwire::messages::{DecodeContext, PgWireBackendMessage, ProtocolVersion};
use postgres_protocol::{
    authentication::sasl::{ChannelBinding, ScramSha256},
    message::{backend::Message, frontend},
};
use std::{
    fmt,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
};
use tidegate_tests::World;

/// One reply as it came.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) tag: u8,
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = &self.body[..self.body.len().min(100)];
        let more = if head.len() < self.body.len() { format!(" … {} bytes", self.body.len()) } else { String::new() };
        write!(f, "{}[{}{more}]", char::from(self.tag), head.escape_ascii())
    }
}

impl Reply {
    /// A field of an ErrorResponse or NoticeResponse (PostgreSQL chapter 55.8).
    pub(crate) fn field(&self, field: u8) -> String {
        let mut fields = self.body.split(|byte| *byte == 0).filter(|text| text.first() == Some(&field));
        fields.next().map(|text| String::from_utf8_lossy(&text[1..]).into_owned()).unwrap_or_default()
    }

    /// The columns of a DataRow.
    pub(crate) fn columns(&self) -> Vec<Option<Vec<u8>>> {
        assert_eq!(self.tag, b'D', "{self:?}");
        let mut rest = &self.body[2..];
        let mut columns = Vec::new();
        while rest.has_remaining() {
            let length = rest.get_i32();
            columns.push(usize::try_from(length).ok().map(|length| rest.copy_to_bytes(length).to_vec()));
        }
        columns
    }

    /// The tag of a CommandComplete, the value of a ParameterStatus and its name, and the like.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end_matches('\0').replace('\0', "=")
    }
}

/// What was asked for at the start.
#[derive(Debug, Clone)]
pub(crate) struct Start<'a> {
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) database: &'a str,
    /// Start-up parameters.
    pub(crate) more: &'a [(&'a str, &'a str)],
    /// The version word.
    pub(crate) version: u32,
}

/// Protocol 3.0.
pub(crate) const V3_0: u32 = 3 << 16;
/// Protocol 3.2.
pub(crate) const V3_2: u32 = V3_0 + 2;

/// A logged-in session.
pub(crate) struct Raw {
    stream: rustls::StreamOwned<rustls::ClientConnection, TcpStream>,
    heard: BytesMut,
    /// What came between the password and the first ReadyForQuery, that one too.
    pub(crate) greeting: Vec<Reply>,
}

impl Raw {
    /// Alice's, in `shop` through the gate.
    pub(crate) fn through_the_gate(world: &World, password: &str) -> Self {
        Self::start(wire::tls(world), &gate(password)).unwrap_or_else(|no| panic!("{no:?}"))
    }

    /// The same for `direct`, at the server itself.
    pub(crate) fn directly(world: &World) -> Self {
        Self::start(wire::tls_to_target(world), &DIRECT).unwrap_or_else(|no| panic!("{no:?}"))
    }

    /// Logs in; or what the other side said instead, to its end.
    pub(crate) fn start(
        stream: rustls::StreamOwned<rustls::ClientConnection, TcpStream>,
        start: &Start<'_>,
    ) -> Result<Self, Vec<Reply>> {
        let mut session = Self { stream, heard: BytesMut::new(), greeting: Vec::new() };
        let mut settings = vec![(&b"user"[..], start.user.as_bytes()), (b"database", start.database.as_bytes())];
        settings.extend(start.more.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        let mut packet = wire::startup(&settings);
        packet[4..8].copy_from_slice(&start.version.to_be_bytes());
        session.send(&packet);
        let mut scram = None;
        loop {
            let Some(reply) = session.next() else { return Err(session.greeting) };
            session.greeting.push(reply.clone());
            let mut answer = BytesMut::new();
            let mut said = BytesMut::from(&[&[reply.tag][..], &wire::sized(&reply.body)].concat()[..]);
            match if reply.tag == b'R' { Message::parse(&mut said).unwrap() } else { None } {
                Some(Message::AuthenticationSasl(_)) => {
                    let exchange = ScramSha256::new(start.password.as_bytes(), ChannelBinding::unsupported());
                    frontend::sasl_initial_response("SCRAM-SHA-256", exchange.message(), &mut answer).unwrap();
                    scram = Some(exchange);
                }
                Some(Message::AuthenticationSaslContinue(body)) => {
                    let exchange = scram.as_mut().unwrap();
                    exchange.update(body.data()).unwrap();
                    frontend::sasl_response(exchange.message(), &mut answer).unwrap();
                }
                Some(Message::AuthenticationSaslFinal(body)) => scram.take().unwrap().finish(body.data()).unwrap(),
                _ => {}
            }
            session.send(&answer);
            if reply.tag == b'Z' {
                return Ok(session);
            }
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.send_in_pieces([bytes]);
    }

    /// Sends each piece in a TLS record and a segment of its own.
    pub(crate) fn send_in_pieces<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        for piece in pieces {
            let sent = self.stream.write_all(piece).and_then(|()| self.stream.flush());
            match sent {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return, // why, is still to be read
                sent => sent.expect("it takes what is sent"),
            }
        }
    }

    /// The next reply; none at the end.
    pub(crate) fn next(&mut self) -> Option<Reply> {
        loop {
            if self.heard.len() >= 5 {
                let whole = 1 + (&self.heard[1..5]).get_u32() as usize;
                if self.heard.len() >= whole {
                    let reply = self.heard.split_to(whole);
                    understood(&reply);
                    return Some(Reply { tag: reply[0], body: reply[5..].to_vec() });
                }
            }
            let mut piece = [0; 32 * 1024];
            match self.read(&mut piece) {
                Ok(0) => return None,
                Ok(count) => self.heard.extend_from_slice(&piece[..count]),
                // Without good-bye: a backend that is killed has no time for one.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing more came: {error}"),
            }
        }
    }

    /// Reads, and does nothing else: what could not be sent must not keep from hearing why.
    fn read(&mut self, piece: &mut [u8]) -> std::io::Result<usize> {
        let rustls::StreamOwned { conn, sock } = &mut self.stream;
        loop {
            match conn.reader().read(piece) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            conn.read_tls(sock)?;
            conn.process_new_packets().map_err(std::io::Error::other)?;
        }
    }

    /// What comes up to the next reply of this type, and that one.
    pub(crate) fn until(&mut self, tag: u8) -> Vec<Reply> {
        let mut replies = Vec::new();
        while let Some(reply) = self.next() {
            let last = reply.tag == tag;
            replies.push(reply);
            if last {
                return replies;
            }
        }
        panic!("the session ended: {replies:?}");
    }

    /// Sends, and hears up to ReadyForQuery.
    pub(crate) fn ask(&mut self, bytes: &[u8]) -> Vec<Reply> {
        self.send(bytes);
        self.until(b'Z')
    }

    /// What the first column of a statement's rows is.
    pub(crate) fn first_column(&mut self, sql: &str) -> Vec<String> {
        let replies = self.ask(&query(sql));
        let rows = replies.iter().filter(|reply| reply.tag == b'D');
        rows.map(|row| String::from_utf8(row.columns().remove(0).unwrap()).unwrap()).collect()
    }

    /// Everything up to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<Reply> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Our own cancel key, as BackendKeyData has it.
    pub(crate) fn key(&self) -> &[u8] {
        &self.greeting.iter().find(|reply| reply.tag == b'K').expect("a cancel key").body
    }
}

/// Alice at `shop`, in protocol 3.0.
pub(crate) fn gate(password: &str) -> Start<'_> {
    Start { user: "alice", password, database: "orders/shop", more: &[], version: V3_0 }
}

/// Her equal at the server itself: see [`equal`].
pub(crate) const DIRECT: Start<'_> =
    Start { user: "direct", password: "its own", database: "shop", more: &[], version: V3_0 };

/// Makes the role that may exactly what Alice's may, and logs in directly.
pub(crate) fn equal(world: &World) {
    let sql = "create role direct login inherit password 'its own' in role shop_writer";
    world.pg().psql("postgres", sql).ok();
}

/// Both parsers take the message whole. FunctionCallResponse is known to neither; what 3.2 brought, to `pgwire` alone.
fn understood(message: &[u8]) {
    let long_key = message[0] == b'K' && message.len() > 13;
    if message[0] == b'V' {
        return;
    }
    if message[0] != b'v' && !long_key {
        let mut bytes = BytesMut::from(message);
        let parsed = Message::parse(&mut bytes).unwrap_or_else(|error| panic!("{error}: {}", message.escape_ascii()));
        assert!(parsed.is_some() && bytes.is_empty(), "{}", message.escape_ascii());
    }
    let mut bytes = BytesMut::from(message);
    let version = if long_key { ProtocolVersion::PROTOCOL3_2 } else { ProtocolVersion::PROTOCOL3_0 };
    let parsed = PgWireBackendMessage::decode(&mut bytes, &DecodeContext::new(version));
    assert!(matches!(parsed, Ok(Some(_))) && bytes.is_empty(), "{parsed:?}: {}", message.escape_ascii());
}

/// Query.
pub(crate) fn query(sql: &str) -> Vec<u8> {
    encoded(|bytes| frontend::query(sql, bytes).unwrap())
}

/// Parse, with the OIDs of its first parameters.
pub(crate) fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    encoded(|bytes| frontend::parse(name, sql, types.iter().copied(), bytes).unwrap())
}

/// Bind: the formats of the parameters, these, and the formats of the results.
pub(crate) fn bind(portal: &str, name: &str, formats: &[i16], values: &[Option<&[u8]>], results: &[i16]) -> Vec<u8> {
    let write = |value: &Option<&[u8]>, bytes: &mut BytesMut| match value {
        None => Ok(postgres_protocol::IsNull::Yes),
        Some(value) => {
            bytes.extend_from_slice(value);
            Ok(postgres_protocol::IsNull::No)
        }
    };
    let (formats, results) = (formats.iter().copied(), results.iter().copied());
    encoded(|bytes| assert!(frontend::bind(portal, name, formats, values, write, results, bytes).is_ok()))
}

/// Describe of a statement (`S`) or a portal (`P`).
pub(crate) fn describe(what: u8, name: &str) -> Vec<u8> {
    encoded(|bytes| frontend::describe(what, name, bytes).unwrap())
}

/// Execute; 0 is all rows.
pub(crate) fn execute(portal: &str, rows: i32) -> Vec<u8> {
    encoded(|bytes| frontend::execute(portal, rows, bytes).unwrap())
}

/// Close of a statement (`S`) or a portal (`P`).
pub(crate) fn close(what: u8, name: &str) -> Vec<u8> {
    encoded(|bytes| frontend::close(what, name, bytes).unwrap())
}

/// FunctionCall with binary arguments and a binary result.
pub(crate) fn call(function: u32, arguments: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = function.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 1]);
    body.extend(u16::try_from(arguments.len()).unwrap().to_be_bytes());
    for argument in arguments {
        let length = argument.map_or(-1, |value| i32::try_from(value.len()).unwrap());
        body.extend(length.to_be_bytes());
        body.extend_from_slice(argument.unwrap_or_default());
    }
    body.extend([0, 1]);
    [&b"F"[..], &wire::sized(&body)].concat()
}

/// CopyData.
pub(crate) fn copy_data(data: &[u8]) -> Vec<u8> {
    encoded(|bytes| frontend::CopyData::new(data).unwrap().write(bytes))
}

/// CopyDone.
pub(crate) const COPY_DONE: &[u8] = b"c\0\0\0\x04";
/// CopyFail, with a reason.
pub(crate) const COPY_FAIL: &[u8] = b"f\0\0\0\x0anever\0";
/// Sync.
pub(crate) const SYNC: &[u8] = b"S\0\0\0\x04";
/// Flush.
pub(crate) const FLUSH: &[u8] = b"H\0\0\0\x04";
/// Terminate.
pub(crate) const TERMINATE: &[u8] = b"X\0\0\0\x04";

fn encoded(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    write(&mut bytes);
    bytes.to_vec()
}

/// The types of these replies, e.g. `12TDCZ`.
pub(crate) fn tags(replies: &[Reply]) -> String {
    replies.iter().map(|reply| char::from(reply.tag)).collect()
}
