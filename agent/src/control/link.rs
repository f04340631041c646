//! Keeps a stream to the controller up for ever, and carries messages both ways.
//!
//! A message that finds no stream is dropped, not queued: what counts is said again in the hello of
//! the next connection (what is held), and a sign-in that nobody hears must fail at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use partywall_proto::agent_api::{ClientMessage, Holding, ServerMessage};
use partywall_proto::ids::AgentId;
use tokio::sync::{Notify, mpsc, watch};
use tracing::{debug, info, warn};

use super::{Addresses, Backoff, Challenge, Stream, StreamError, Trust};
use crate::daemon::describe;
use crate::dataplane::FlowQueue;
use crate::state::Keys;

/// A connection that lasted this long was a good one: the next attempt need not wait. Two machines
/// with one identity push each other off sooner than that.
const LASTING: Duration = Duration::from_secs(15);

/// From the link to the daemon.
#[derive(Debug)]
pub enum LinkEvent {
    /// A stream is open and the hello is sent.
    Connected {
        /// The controller's clock as of now.
        challenge: Challenge,
        /// Where the controller was found.
        addresses: Vec<SocketAddr>,
    },
    /// A message came.
    Message(ServerMessage),
    /// A message came that this version cannot read.
    Unreadable(String),
    /// The stream is over; the link tries again by itself.
    Disconnected(String),
}

/// What the link needs to know.
#[derive(Debug)]
pub struct Link {
    /// Who we are.
    pub agent: AgentId,
    /// The controller.
    pub addresses: Addresses,
    /// Its CA.
    pub trust: Trust,
    /// Mark of the socket.
    pub mark: Option<u32>,
    /// What is enforced, for the hello.
    pub holding: watch::Receiver<Option<Holding>>,
    /// Connects anew when notified, for the sake of a new hello.
    pub again: Arc<Notify>,
    /// Where to report.
    pub events: mpsc::Sender<LinkEvent>,
    /// What to send.
    pub outgoing: mpsc::Receiver<ClientMessage>,
    /// Where records that find no stream are counted.
    pub flows: FlowQueue,
}

/// This agent's version, for the controller's list.
pub(super) fn software() -> String {
    format!("partywall-agent {}", env!("CARGO_PKG_VERSION"))
}

impl Link {
    /// Runs until the daemon drops its ends of the channels.
    pub async fn run(mut self, keys: &Keys) {
        let mut backoff = Backoff::default();
        let mut told = String::new();
        loop {
            let begin = Instant::now();
            let error = match self.once(keys).await {
                Ok(()) => return,
                Err(error) => describe(&error),
            };
            if begin.elapsed() > LASTING {
                backoff = Backoff::default();
            }
            // The same failure every few seconds for a night is worth one line.
            match error == told {
                true => debug!(%error, "still no controller"),
                false => warn!(%error, "no connection to the controller; trying again"),
            }
            told.clone_from(&error);
            let events = self.events.clone();
            let report = events.send(LinkEvent::Disconnected(error));
            match self.dropping_messages(report).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return,
            }
            let delay = backoff.next_delay(&mut rand::thread_rng());
            if self.dropping_messages(tokio::time::sleep(delay)).await.is_none() {
                return;
            }
        }
    }

    /// Waits for `what`, and drops messages meanwhile: the daemon must never wait for a link that
    /// waits for the daemon. None where the daemon is gone.
    async fn dropping_messages<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(what);
        loop {
            tokio::select! {
                done = &mut what => return Some(done),
                message = self.outgoing.recv() => {
                    self.flows.lose(records_in(&message?));
                    debug!("a message found no stream and is dropped");
                }
            }
        }
    }

    /// One connection. `Ok` means that the daemon is gone.
    async fn once(&mut self, keys: &Keys) -> Result<(), StreamError> {
        let (mut stream, challenge) =
            Stream::open(&mut self.addresses, &self.trust, self.mark).await?;
        let hello = ClientMessage::Hello {
            agent: self.agent.clone(),
            proof: keys.prove(&challenge.nonce),
            holding: self.holding.borrow().clone(),
            software: software(),
        };
        stream.send(&hello).await?;
        info!(controller = self.addresses.name(), "connected to the controller");
        let addresses = self.addresses.known().to_vec();
        let connected = LinkEvent::Connected { challenge, addresses };
        let events = self.events.clone();
        match self.dropping_messages(events.send(connected)).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return Ok(()),
        }
        loop {
            // Nothing is read before there is room for it, so that sending never stands still.
            let room_and_message = async {
                let room = events.reserve().await;
                (room, stream.next().await)
            };
            tokio::select! {
                (room, message) = room_and_message => {
                    let Ok(room) = room else { return Ok(()) };
                    let event = match message {
                        Ok(message) => LinkEvent::Message(message),
                        Err(error @ StreamError::Unreadable(_)) => {
                            LinkEvent::Unreadable(describe(&error))
                        }
                        Err(error) => return Err(error),
                    };
                    room.send(event);
                }
                () = self.again.notified() => return Err(StreamError::Renewed),
                message = self.outgoing.recv() => match message {
                    Some(message) => {
                        if let Err(error) = stream.send(&message).await {
                            self.flows.lose(records_in(&message));
                            return Err(error);
                        }
                    }
                    None => return Ok(()),
                },
            }
        }
    }
}

/// How many flow records are lost with a message, those that it counts as lost included.
fn records_in(message: &ClientMessage) -> u64 {
    match message {
        ClientMessage::Flows { records, lost } => records.len() as u64 + lost,
        ClientMessage::Enrol { .. }
        | ClientMessage::Hello { .. }
        | ClientMessage::Applied { .. }
        | ClientMessage::Rejected { .. }
        | ClientMessage::SignIn { .. }
        | ClientMessage::SignOut { .. }
        | ClientMessage::Status { .. } => 0,
    }
}
