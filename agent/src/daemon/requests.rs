//! Requests to the controller, one at a time: it refuses a second before it has answered the first.
//!
//! A sign-in right after a sign-out waits here for the sign-out's answer.

use std::collections::VecDeque;

use partywall_proto::agent_api::ClientMessage;

/// The request that the controller is at work on, and those that wait.
#[derive(Debug, Default)]
pub(super) struct Requests {
    last: u32,
    outstanding: Option<u32>,
    waiting: VecDeque<(u32, ClientMessage)>,
}

impl Requests {
    /// A number for a new request.
    pub(super) fn number(&mut self) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.last
    }

    /// Adds request `number`. What is returned is to be sent now.
    pub(super) fn ask(&mut self, number: u32, message: ClientMessage) -> Option<ClientMessage> {
        self.waiting.push_back((number, message));
        self.next()
    }

    /// Request `number` was answered. What is returned is to be sent now.
    pub(super) fn answered(&mut self, number: u32) -> Option<ClientMessage> {
        if self.outstanding == Some(number) {
            self.outstanding = None;
        }
        self.next()
    }

    /// The connection is gone, and every request with it.
    pub(super) fn clear(&mut self) {
        self.outstanding = None;
        self.waiting.clear();
    }

    fn next(&mut self) -> Option<ClientMessage> {
        if self.outstanding.is_some() {
            return None;
        }
        let (number, message) = self.waiting.pop_front()?;
        self.outstanding = Some(number);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_request_waits_for_the_firsts_answer() {
        let mut requests = Requests::default();
        let sign_out = |request| ClientMessage::SignOut { request };
        let (one, two) = (requests.number(), requests.number());
        assert_eq!(requests.ask(one, sign_out(one)), Some(sign_out(one)));
        assert_eq!(requests.ask(two, sign_out(two)), None);
        assert_eq!(requests.answered(99), None);
        assert_eq!(requests.answered(one), Some(sign_out(two)));
        assert_eq!(requests.answered(two), None);
    }

    #[test]
    fn a_lost_connection_leaves_no_request_behind() {
        let mut requests = Requests::default();
        let sign_out = |request| ClientMessage::SignOut { request };
        requests.ask(1, sign_out(1));
        requests.ask(2, sign_out(2));
        requests.clear();
        assert_eq!(requests.ask(3, sign_out(3)), Some(sign_out(3)));
    }
}
