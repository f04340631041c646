//! The WebSocket to the controller: JSON messages in text frames, the controller speaks first.
//!
//! A stream that is silent for 30 s is dead: the controller pings every 10 s. Sizes are bounded by
//! what the agent API allows, before anything is parsed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use jiff::Timestamp;
use partywall_proto::agent_api::{
    ClientMessage, PING_INTERVAL_S, SERVER_MESSAGE_MAX_BYTES, STREAM_PATH, ServerMessage,
};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use super::{Addresses, DialError, TlsError, Trust};

const SILENCE_MAX: Duration = Duration::from_secs(3 * PING_INTERVAL_S);
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The stream could not be opened, or is over.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// No TCP connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// TLS could not be set up here.
    #[error(transparent)]
    TlsSetup(#[from] TlsError),
    /// The host part of the address is neither a name nor an IP address.
    #[error("{host:?} is no name that a certificate can be for")]
    Host {
        /// The refused host.
        host: String,
    },
    /// The machine that answers is not the controller that this machine trusts.
    #[error("what answers at {name} cannot prove to be the controller; nothing was sent to it")]
    Untrusted {
        /// `host:port`.
        name: String,
        /// What TLS says.
        #[source]
        source: io::Error,
    },
    /// The WebSocket failed.
    #[error("the connection to the controller failed")]
    WebSocket(#[source] Box<tungstenite::Error>),
    /// Nothing came for too long.
    #[error("the controller has been silent for {} s", SILENCE_MAX.as_secs())]
    Silent,
    /// This agent connects anew on purpose.
    #[error("connecting anew for a snapshot")]
    Renewed,
    /// The controller closed the stream.
    #[error("the controller closed the connection")]
    Closed,
    /// The first message was no challenge.
    #[error("the controller did not begin with a challenge; is this its agent address?")]
    NoChallenge,
    /// A message that this version cannot read. The stream is still good.
    #[error("the controller sent a message that this version does not know; update the agent")]
    Unreadable(#[source] serde_json::Error),
}

impl From<tungstenite::Error> for StreamError {
    fn from(error: tungstenite::Error) -> Self {
        // A controller that is killed has no time to say goodbye.
        let is_end = matches!(&error, tungstenite::Error::Io(io)
            if io.kind() == io::ErrorKind::UnexpectedEof);
        if is_end { Self::Closed } else { Self::WebSocket(Box::new(error)) }
    }
}

/// What the controller said first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// To be signed.
    pub nonce: String,
    /// The controller's clock.
    pub time: Timestamp,
    /// This machine's clock when it came.
    pub received_at: Timestamp,
}

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    /// When the last frame came, pings included. Not when somebody last waited for one.
    heard_at: Instant,
    silence_max: Duration,
}

impl Stream {
    /// Connects, checks the controller's certificate and takes its challenge.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub async fn open(
        addresses: &mut Addresses,
        trust: &Trust,
        mark: Option<u32>,
    ) -> Result<(Self, Challenge), StreamError> {
        let tcp = addresses.connect(mark).await?;
        timeout(OPEN_TIMEOUT, Self::over(tcp, addresses, trust))
            .await
            .map_err(|_| StreamError::Silent)?
    }

    async fn over(
        tcp: TcpStream,
        addresses: &Addresses,
        trust: &Trust,
    ) -> Result<(Self, Challenge), StreamError> {
        let connector = TlsConnector::from(Arc::new(trust.client_config()?));
        let host = addresses.host().to_owned();
        let server_name =
            ServerName::try_from(host.clone()).map_err(|_| StreamError::Host { host })?;
        let tls = connector.connect(server_name, tcp).await.map_err(|source| {
            StreamError::Untrusted { name: addresses.name().to_owned(), source }
        })?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(SERVER_MESSAGE_MAX_BYTES))
            .max_frame_size(Some(SERVER_MESSAGE_MAX_BYTES));
        let url = format!("wss://{}{STREAM_PATH}", addresses.name());
        let (socket, _) =
            tokio_tungstenite::client_async_with_config(url, tls, Some(config)).await?;
        let mut stream = Self { socket, heard_at: Instant::now(), silence_max: SILENCE_MAX };
        match stream.next().await? {
            ServerMessage::Challenge { nonce, time } => {
                Ok((stream, Challenge { nonce, time, received_at: Timestamp::now() }))
            }
            ServerMessage::Welcome { .. }
            | ServerMessage::Config { .. }
            | ServerMessage::Nothing { .. }
            | ServerMessage::SignedIn { .. }
            | ServerMessage::SignedOut { .. }
            | ServerMessage::Refused { .. } => Err(StreamError::NoChallenge),
        }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// A stream that is over, or that takes nothing for 10 s.
    ///
    /// # Panics
    /// Never: the agent's messages all have a JSON form.
    pub async fn send(&mut self, message: &ClientMessage) -> Result<(), StreamError> {
        let text = serde_json::to_string(message).expect("messages have a JSON form");
        timeout(SEND_TIMEOUT, self.socket.send(Message::text(text)))
            .await
            .map_err(|_| StreamError::Silent)??;
        Ok(())
    }

    /// The next message. May be cancelled at any time without losing one.
    ///
    /// # Errors
    /// A stream that is over or silent; [`StreamError::Unreadable`] leaves the stream good.
    pub async fn next(&mut self) -> Result<ServerMessage, StreamError> {
        loop {
            let message = timeout_at(self.heard_at + self.silence_max, self.socket.next())
                .await
                .map_err(|_| StreamError::Silent)?
                .ok_or(StreamError::Closed)??;
            self.heard_at = Instant::now();
            match message {
                Message::Text(text) => {
                    return serde_json::from_str(&text).map_err(StreamError::Unreadable);
                }
                Message::Close(_) => return Err(StreamError::Closed),
                // tungstenite answers pings by itself while it is being read.
                Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::FakeController;

    #[tokio::test]
    async fn a_silent_controller_is_noticed_however_often_one_listens_anew() {
        let mut controller = FakeController::start().await;
        let trust = Trust::Ca(controller.pki.ca());
        let mut addresses = Addresses::new(&controller.address(), Vec::new());
        let (opened, _peer) =
            tokio::join!(Stream::open(&mut addresses, &trust, None), controller.accept());
        let (mut stream, _) = opened.unwrap();
        stream.silence_max = Duration::from_millis(300);
        for _ in 0..100 {
            match timeout(Duration::from_millis(50), stream.next()).await {
                Ok(Err(StreamError::Silent)) => return,
                Ok(other) => panic!("{other:?}"),
                Err(_) => {}
            }
        }
        panic!("the silence went unnoticed");
    }
}
