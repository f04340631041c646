//! The server: TLS, its bounds against slow and many, and an orderly end.
//!
//! Whoever connects is a stranger until a token or an identity proof says otherwise, so each stage
//! before that has its own short time limit.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use partywall_proto::agent_api::PING_INTERVAL_S;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Edge, router};
use crate::app::App;
use crate::pki::{PkiError, ServerIdentity, server_config};

/// Time for a TLS handshake: several round trips over a bad link.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a request's head, and for a connection that asks for nothing more.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Time that requests under way are given at the end; agents reconnect on their own.
const GRACE: Duration = Duration::from_secs(5);

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The TLS identity is of no use.
    #[error("the TLS identity cannot be used")]
    Pki(#[from] PkiError),
    /// A listening socket broke.
    #[error("cannot serve on {address}")]
    Serve {
        /// Where.
        address: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// What the service manager handed over is no TCP socket.
    #[error("the socket that the service manager passed is not a listening TCP socket")]
    PassedSocket(#[source] std::io::Error),
    /// There is nothing to listen on.
    #[error("no address to listen on; give `--listen ADDR:PORT` or start by socket activation")]
    NoListener,
}

/// The edge, ready to run.
pub struct Server {
    app: App,
    tls: RustlsConfig,
    stop: StopHandle,
    ping_interval: Duration,
}

/// Ends a running [`Server`] in good order.
#[derive(Clone)]
pub struct StopHandle {
    stopping: Arc<watch::Sender<bool>>,
}

impl StopHandle {
    /// No new connections from now on; requests under way finish, streams say goodbye.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

impl Server {
    /// A server for `app` that shows `identity`.
    ///
    /// # Errors
    /// An identity whose key does not fit its certificate.
    pub fn new(app: App, identity: ServerIdentity) -> Result<Self, ServerError> {
        let tls = RustlsConfig::from_config(Arc::new(server_config(identity)?));
        let (stopping, _) = watch::channel(false);
        let stop = StopHandle { stopping: Arc::new(stopping) };
        Ok(Self { app, tls, stop, ping_interval: Duration::from_secs(PING_INTERVAL_S) })
    }

    /// Pings agents at another interval than [`PING_INTERVAL_S`].
    #[must_use]
    pub fn pinging_every(self, ping_interval: Duration) -> Self {
        Self { ping_interval, ..self }
    }

    /// The handle that ends this server.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// What shows a renewed identity to connections from now on.
    pub fn tls(&self) -> RustlsConfig {
        self.tls.clone()
    }

    /// Serves on all `listeners` until stopped.
    ///
    /// # Errors
    /// The first listener that breaks; the others are stopped then.
    pub async fn run(self, listeners: Vec<TcpListener>) -> Result<(), ServerError> {
        if listeners.is_empty() {
            return Err(ServerError::NoListener);
        }
        let Self { app, tls, stop, ping_interval } = self;
        let mut servers = JoinSet::new();
        for listener in listeners {
            let router = router(Edge::new(app.clone(), stop.stopping.subscribe(), ping_interval));
            servers.spawn(serve(listener, tls.clone(), router, stop.stopping.subscribe()));
        }
        let mut result = Ok(());
        while let Some(ended) = servers.join_next().await {
            stop.stop();
            let ended = ended.expect("a server's own task neither panics nor is aborted");
            result = result.and(ended);
        }
        // What still listens for the end now are the agents' streams.
        if tokio::time::timeout(GRACE, stop.stopping.closed()).await.is_err() {
            tracing::warn!("some agents' streams did not end in time and are cut");
        }
        result
    }
}

async fn serve(
    listener: TcpListener,
    tls: RustlsConfig,
    router: axum::Router,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), ServerError> {
    let address = listener.local_addr().map_or_else(|_| "?".to_owned(), |at| at.to_string());
    let failed = |source| ServerError::Serve { address: address.clone(), source };
    let handle: Handle<SocketAddr> = Handle::new();
    let acceptor = RustlsAcceptor::new(tls)
        .handshake_timeout(HANDSHAKE_TIMEOUT)
        // A revocation is one small message; it does not wait for company.
        .acceptor(NoDelayAcceptor::new());
    let mut server = axum_server::from_tcp(listener)
        .map_err(failed)?
        .acceptor(acceptor)
        .handle(handle.clone())
        .first_request_timeout(HEAD_TIMEOUT)
        .accept_error_handler(|from, error| tracing::debug!(?from, %error, "not accepted"));
    server.http_builder().http1().header_read_timeout(HEAD_TIMEOUT);
    let ending = tokio::spawn(async move {
        // A sender that is gone means the end as well.
        let _gone = stopping.wait_for(|stopping| *stopping).await;
        handle.graceful_shutdown(Some(GRACE));
    });
    tracing::info!(%address, "serving");
    let ended = server.serve(router.into_make_service()).await.map_err(failed);
    ending.abort();
    ended
}

/// The listening sockets that systemd passed (`LISTEN_FDS`), if any. Call once, early.
///
/// # Errors
/// A passed descriptor that is no listening TCP socket.
pub fn listeners_from_systemd() -> Result<Vec<TcpListener>, ServerError> {
    let mut passed = listenfd::ListenFd::from_env();
    (0..passed.len())
        .filter_map(|at| passed.take_tcp_listener(at).transpose())
        .collect::<Result<_, _>>()
        .map_err(ServerError::PassedSocket)
}
