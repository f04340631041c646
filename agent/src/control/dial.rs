//! A TCP connection to the controller that never enters the tunnel.
//!
//! The mark goes on the socket before it connects, so that policy routing and the leak guard see it
//! on the very first packet.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A name with more addresses than this is not tried further.
const ADDRESSES_MAX: usize = 8;

/// No TCP connection to the controller.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("the controller's name {name} cannot be looked up")]
    Lookup {
        /// `host:port`.
        name: String,
        /// What the resolver says.
        #[source]
        source: io::Error,
    },
    /// The socket could not be marked.
    #[error("cannot mark the connection to the controller; the agent needs CAP_NET_ADMIN")]
    Mark(#[source] io::Error),
    /// No address answered.
    #[error("the controller at {} cannot be reached", place(name, address))]
    Connect {
        /// `host:port`.
        name: String,
        /// The last address that was tried.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The address beside the name, where it says more.
fn place(name: &str, address: &SocketAddr) -> String {
    let text = address.to_string();
    if name == text { text } else { format!("{name} ({text})") }
}

/// The controller's name and the addresses that it was last found under.
///
/// While a session is up, names are looked up inside the segment, which need not know the
/// controller: the last known addresses are tried as well.
#[derive(Debug, Clone)]
pub struct Addresses {
    name: String,
    known: Vec<SocketAddr>,
}

impl Addresses {
    /// The controller `host:port`, with addresses remembered from earlier.
    pub fn new(name: &str, known: Vec<SocketAddr>) -> Self {
        Self { name: name.to_owned(), known }
    }

    /// The host part, without brackets: what the certificate must be for.
    pub fn host(&self) -> &str {
        let host = self.name.rsplit_once(':').map_or(self.name.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// `host:port`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Connects to the first address that answers, known ones first, and remembers it.
    ///
    /// # Errors
    /// See [`DialError`]: the last failure.
    pub async fn connect(&mut self, mark: Option<u32>) -> Result<TcpStream, DialError> {
        let mut failure = None;
        for address in self.known.clone() {
            match connect(address, mark).await {
                Ok(stream) => return Ok(stream),
                Err(Failure::Mark(source)) => return Err(DialError::Mark(source)),
                Err(Failure::Connect(source)) => failure = Some((address, source)),
            }
        }
        let name = || self.name.clone();
        let found = match lookup(&self.name).await {
            Ok(found) => found,
            Err(source) => {
                return Err(match failure {
                    Some((address, source)) => DialError::Connect { name: name(), address, source },
                    None => DialError::Lookup { name: name(), source },
                });
            }
        };
        for address in found.into_iter().filter(|address| !self.known.contains(address)) {
            match connect(address, mark).await {
                Ok(stream) => {
                    self.known = vec![address];
                    return Ok(stream);
                }
                Err(Failure::Mark(source)) => return Err(DialError::Mark(source)),
                Err(Failure::Connect(source)) => failure = Some((address, source)),
            }
        }
        Err(match failure {
            Some((address, source)) => DialError::Connect { name: name(), address, source },
            None => DialError::Lookup { name: name(), source: io::ErrorKind::NotFound.into() },
        })
    }

    /// The addresses worth remembering over a restart.
    pub fn known(&self) -> &[SocketAddr] {
        &self.known
    }
}

enum Failure {
    Mark(io::Error),
    Connect(io::Error),
}

async fn lookup(name: &str) -> io::Result<Vec<SocketAddr>> {
    let found = timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host(name))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(found.take(ADDRESSES_MAX).collect())
}

async fn connect(address: SocketAddr, mark: Option<u32>) -> Result<TcpStream, Failure> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))
            .map_err(Failure::Connect)?;
    if let Some(mark) = mark {
        socket.set_mark(mark).map_err(Failure::Mark)?;
    }
    socket.set_tcp_nodelay(true).map_err(Failure::Connect)?;
    let socket = TcpSocket::from_std_stream(socket.into());
    timeout(CONNECT_TIMEOUT, socket.connect(address))
        .await
        .map_err(|_| Failure::Connect(io::ErrorKind::TimedOut.into()))?
        .map_err(Failure::Connect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address_stands_without_brackets_and_port() {
        for (name, host) in [("a.example:1", "a.example"), ("[fd00::1]:8443", "fd00::1")] {
            assert_eq!(Addresses::new(name, Vec::new()).host(), host);
        }
    }

    #[tokio::test]
    async fn a_remembered_address_is_used_when_the_name_cannot_be_looked_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let known = vec![listener.local_addr().unwrap()];
        let mut addresses = Addresses::new("no-such-name.invalid:1", known.clone());
        addresses.connect(None).await.unwrap();
        assert_eq!(addresses.known(), known);
    }

    #[tokio::test]
    async fn a_controller_that_is_away_is_named_in_the_error() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = Addresses::new(&name, Vec::new()).connect(None).await.unwrap_err();
        assert!(error.to_string().contains(&name), "{error}");
    }
}
