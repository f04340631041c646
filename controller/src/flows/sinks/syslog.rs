//! A sink that is a syslog server behind TLS (RFC 5425).
//!
//! Syslog has no acknowledgement: what the server had taken when a connection broke is not known. The batch
//! that was being sent goes out again as a whole; what the kernel had taken of those before may be lost.

use std::sync::Arc;

use futures_util::FutureExt as _;
use partywall_proto::admin::StoredFlow;
use partywall_proto::nets::Prefix;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::network::{later, resolve, tls, within};
use super::{SendError, rfc5424};

/// See the module.
pub(super) struct SyslogTarget {
    server: String,
    ca: String,
    networks: Vec<Prefix>,
    connection: Option<Box<TlsStream<TcpStream>>>,
}

impl SyslogTarget {
    pub(super) fn new(server: &str, ca: &str, networks: &[Prefix]) -> Self {
        let (server, ca) = (server.to_owned(), ca.to_owned());
        Self { server, ca, networks: networks.to_vec(), connection: None }
    }

    pub(super) async fn send(&mut self, flows: &[StoredFlow]) -> Result<(), SendError> {
        let mut connection = match self.connection.take().and_then(still_open) {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut text = Vec::new();
        for stored in flows {
            rfc5424::write(stored, &mut text);
        }
        within(async {
            connection.write_all(&text).await?;
            connection.flush().await
        })
        .await?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn connect(&self) -> Result<Box<TlsStream<TcpStream>>, SendError> {
        let (host, port) = self.server.rsplit_once(':').unwrap_or((&self.server, "6514"));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().map_err(|_| later("its port is no number"))?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| later("its name is none"))?;
        let addresses = resolve(host, port, &self.networks).await?;
        let tls = TlsConnector::from(Arc::new(tls(&self.ca)?));
        let tcp = within(TcpStream::connect(addresses.as_slice())).await?;
        within(tls.connect(name, tcp)).await.map(Box::new)
    }
}

/// The connection, unless the server has hung up. A server has nothing to say here.
fn still_open(mut connection: Box<TlsStream<TcpStream>>) -> Option<Box<TlsStream<TcpStream>>> {
    let heard = connection.read(&mut [0]).now_or_never();
    heard.is_none().then_some(connection)
}
