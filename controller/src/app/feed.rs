//! What one connected agent is to be sent, in order, with a bound: an agent that does not read is cut
//! off and gets a snapshot when it comes back.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use partywall_proto::agent_api::ServerMessage;
use tokio::sync::mpsc;

/// Messages for one connection. Ends when the agent is cut off or superseded; dropping it ends the
/// connection's part in everything.
#[derive(Debug)]
pub struct AgentFeed {
    pub(super) messages: mpsc::Receiver<ServerMessage>,
}

impl Stream for AgentFeed {
    type Item = ServerMessage;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<ServerMessage>> {
        self.messages.poll_recv(context)
    }
}

/// What an agent is told first, apart from its config.
#[derive(Debug, Clone, PartialEq)]
pub struct Welcome {
    /// [`ServerMessage::Welcome`], ready to send.
    pub message: ServerMessage,
}
