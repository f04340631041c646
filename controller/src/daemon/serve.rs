//! `serve`: runs the controller on its data directory until it is told to stop.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use partywall_proto::nets::Prefix;
use tokio::signal::unix::{SignalKind, signal};

use super::{FLOWS_DIRECTORY, STORE_DIRECTORY};
use crate::app::{App, AppError, Clock as _, SystemClock};
use crate::flows::{FlowLimits, Flows, FlowsError, SinkLimits};
use crate::http::{Server, ServerError, listeners_from_systemd};
use crate::pki::{CA_FILE, PkiError, ServerIdentity, server_config};
use crate::store::StoreError;
use crate::store::sled::SledStore;

/// How often a running controller looks at its certificate's end.
const IDENTITY_CHECK_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Time for the last flow records to be written.
const FLOWS_TIMEOUT: Duration = Duration::from_secs(5);

/// How to run.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeRequest {
    /// The data directory that `init` made
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where to listen; not needed under systemd socket activation
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Your own certificate chain in PEM, signed by the CA that agents pin
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The key of `--cert` in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Most disk space for the flow records of each organisation, in MiB; the oldest make room
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(16..=1 << 24))]
    pub flow_budget_mib: u64,
    /// A folder where organisations may have their flow records written as files; none unless stated
    #[arg(long, value_name = "DIR")]
    pub flow_files: Option<PathBuf>,
    /// A network that organisations' sinks for flow records may be in; repeat for several. Unless stated, any
    /// but this machine's own addresses and its link
    #[arg(long, value_name = "PREFIX")]
    pub flow_sink_network: Vec<Prefix>,
}

/// Why the controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The directory is none of `init`'s.
    #[error("{path} is no initialised data directory; run `partywall-controller init` first")]
    NotInitialised {
        /// Which directory.
        path: PathBuf,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
    /// The certificate or its key.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The flow records.
    #[error(transparent)]
    Flows(#[from] FlowsError),
    /// The app.
    #[error(transparent)]
    App(#[from] AppError),
    /// The server.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// Anything that keeps the controller from running.
pub async fn serve(request: &ServeRequest) -> Result<(), ServeError> {
    if !request.data.join(CA_FILE).is_file() || !request.data.join(STORE_DIRECTORY).is_dir() {
        return Err(ServeError::NotInitialised { path: request.data.clone() });
    }
    let mut listeners = listeners_from_systemd()?;
    for address in &request.listen {
        let listener = TcpListener::bind(address)
            .map_err(|source| ServeError::Listen { address: *address, source })?;
        listeners.push(listener);
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;

    let identity = request.identity()?;
    let store = Arc::new(SledStore::open(&request.data.join(STORE_DIRECTORY))?);
    let app = App::open(store, Arc::new(SystemClock)).await?;
    let flows = Flows::open(&request.data.join(FLOWS_DIRECTORY), request.flow_limits())?;
    app.keep_flows(flows.clone());
    let server = Server::new(app.clone(), identity)?;
    let stop = server.stop_handle();
    let background = tokio::spawn(async move { app.run_background().await });
    let renewal = tokio::spawn(keep_identity_fresh(request.clone(), server.tls()));
    let signals = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
        tracing::info!("stopping");
        notify(sd_notify::NotifyState::Stopping);
        stop.stop();
    });
    notify(sd_notify::NotifyState::Ready);
    let ended = server.run(listeners).await;
    for task in [background, renewal, signals] {
        task.abort();
    }
    if tokio::time::timeout(FLOWS_TIMEOUT, flows.settle()).await.is_err() {
        tracing::warn!("the last flow records were not written in time");
    }
    Ok(ended?)
}

impl ServeRequest {
    fn flow_limits(&self) -> FlowLimits {
        let (files, networks) = (self.flow_files.clone(), self.flow_sink_network.clone());
        let sinks = SinkLimits { files, networks };
        FlowLimits { budget_bytes: self.flow_budget_mib << 20, sinks }
    }

    fn identity(&self) -> Result<ServerIdentity, PkiError> {
        let now = SystemClock.now();
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => ServerIdentity::from_files(&self.data, cert, key, now),
            (None, None) | (Some(_), None) | (None, Some(_)) => {
                ServerIdentity::from_directory(&self.data, now)
            }
        }
    }
}

/// Renews the controller's own certificate, and takes up a given one that was replaced, without a restart.
async fn keep_identity_fresh(request: ServeRequest, tls: RustlsConfig) {
    loop {
        tokio::time::sleep(IDENTITY_CHECK_INTERVAL).await;
        match request.identity().and_then(server_config) {
            Ok(config) => tls.reload_from_config(Arc::new(config)),
            Err(error) => tracing::error!(%error, "the server certificate cannot be renewed"),
        }
    }
}

fn notify(state: sd_notify::NotifyState<'_>) {
    // Without a service manager there is nobody to tell.
    let _nobody = sd_notify::notify(&[state]);
}
