//! Serves the API over HTTPS, for whoever has a token ([`bearer`]), and the pages for people ([`pages`](crate::pages)).
//!
//! What always holds: accepting waits for no peer; a handshake and a request's head have deadlines; connections are bounded
//! per source and in all, as at every door (`[limits]`); the certificate is replaced while the gateway runs, as the PostgreSQL
//! door's ([`tidegate_proxy::tls`]).

use super::{
    bearer,
    routes::{self, Api},
    stay::Stay,
};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};
use tidegate_proxy::{
    listener::{self, Doorway, Visitor},
    places::Places,
    tls::{ListenerTls, Source as Certificate},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// A request's head must be here by then; a connection may idle so long.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// A connection is hung up on after this, whatever it does but to show a live session.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(120);
/// What is being answered when the gateway stops gets so long.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// HTTP/1.1 alone (RFC 7301 section 6).
const ALPN: &[u8] = b"http/1.1";

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source(pub(super) IpAddr);

impl Source {
    /// The address.
    pub(crate) fn address(&self) -> IpAddr {
        self.0
    }
}

/// Serves until the gateway stops.
pub(crate) async fn serve(
    (listener, places): (TcpListener, Places),
    api: Arc<Api>,
    pages: Router,
    certificate: Certificate,
) {
    let tls = Arc::new(ListenerTls::new(certificate, ALPN));
    let router = bearer::guarded(routes::router(api.clone()), api.clone()).merge(pages);
    let gate = api.gate.clone();
    // Before TLS there is nothing that a client would understand.
    let doorway = Doorway { protocol: "api", places, proxied: Vec::new(), full: |_| Vec::new() };
    let serve = move |stream, visitor: Visitor| {
        let (api, tls, router) = (api.clone(), tls.clone(), router.clone());
        async move {
            let stay = Stay::default();
            tokio::select! {
                () = connection(stream, visitor, &api, &tls, router.layer(Extension(stay.clone()))) => {}
                () = stay.past(CONNECTION_DEADLINE) => {}
            }
        }
    };
    listener::accept(listener, &gate, doorway, serve).await;
}

async fn connection(stream: TcpStream, visitor: Visitor, api: &Api, tls: &ListenerTls, router: Router) {
    let source = visitor.peer.ip().to_canonical();
    let acceptor = match tls.current(api.gate.now()) {
        Ok(current) => current.acceptor,
        Err(error) => return tracing::error!(%error, "the API has no certificate"),
    };
    let stream = match timeout(visitor.handshake_timeout(), acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%source, %error, "no TLS at the API"),
        Err(_) => return tracing::debug!(%source, "no TLS at the API in time"),
    };
    // Whoever has shown no token yet is nobody, and pushed out when places are few.
    let visitor = Arc::new(visitor);
    let service = TowerToHyperService::new(router.layer(Extension(Source(source))).layer(Extension(visitor)));
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = api.gate.stopping.cancelled() => {
            served.as_mut().graceful_shutdown();
            timeout(LAST_WORDS, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%source, %error, "a connection to the API ended badly");
    }
}
