//! A sign-in under way: sent to the controller, then waiting for the tunnel to carry packets.
//!
//! The person is told "signed in" only after a handshake with a gateway, because only then does the
//! next thing they click work.

use std::time::{Duration, Instant};

use partywall_proto::ids::SegmentId;
use partywall_proto::overlay::Session;
use partywall_proto::problem::Problem;
use tokio::sync::oneshot;

use crate::ipc::Reply;

/// The controller checks a password on purpose slowly, and makes many wait their turn.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// From the controller's yes to the first handshake. One that is lost is repeated after five seconds
/// (WireGuard's `REKEY_TIMEOUT`), and then there is time for its answer.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(8);

/// The one sign-in that may be under way.
#[derive(Debug)]
pub(super) struct Login {
    /// The request's number on the stream.
    pub(super) request: u32,
    /// Who asked.
    pub(super) uid: u32,
    reply: oneshot::Sender<Reply>,
    deadline: Instant,
    accepted: Option<(Session, SegmentId)>,
}

impl Login {
    pub(super) fn new(request: u32, uid: u32, reply: oneshot::Sender<Reply>, now: Instant) -> Self {
        Self { request, uid, reply, deadline: now + ANSWER_TIMEOUT, accepted: None }
    }

    /// The controller said yes.
    pub(super) fn accept(&mut self, session: Session, segment: SegmentId, now: Instant) {
        self.accepted = Some((session, segment));
        self.deadline = now + TUNNEL_TIMEOUT;
    }

    /// The session that the tunnel is to come up for, once the controller has said yes.
    pub(super) fn accepted(&self) -> Option<&(Session, SegmentId)> {
        self.accepted.as_ref()
    }

    /// Whether it has taken too long.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        now >= self.deadline
    }

    /// Ends it. A caller that has gone away does not mind.
    pub(super) fn answer(self, reply: Reply) {
        let _ = self.reply.send(reply);
    }

    /// Ends it with what went wrong.
    pub(super) fn fail(self, problem: Problem) {
        self.answer(Reply::Refused { problem });
    }
}

/// What a person is told when a sign-in cannot be asked for, or does not come through.
pub(super) mod problems {
    use super::Problem;

    pub(in crate::daemon) fn no_controller(trouble: &str) -> Problem {
        let detail = format!(
            "Nobody can sign in until it is back; a session that is running goes on. ({trouble})"
        );
        Problem::new(503, "no-controller", "The Partywall controller cannot be reached", detail)
    }

    pub(in crate::daemon) fn under_way() -> Problem {
        let title = "Somebody is signing in on this machine right now";
        Problem::new(409, "login-under-way", title, "Try again in a moment.")
    }

    pub(in crate::daemon) fn not_a_device() -> Problem {
        let title = "This machine is a gateway";
        Problem::new(409, "not-a-device", title, "Sign in on a staff machine.")
    }

    pub(in crate::daemon) fn no_answer() -> Problem {
        let title = "The Partywall controller did not answer in time";
        Problem::new(504, "no-answer", title, "Try again with a new code.")
    }

    pub(in crate::daemon) fn not_enforced(trouble: Option<&str>) -> Problem {
        let title = "Your sign-in was accepted, but this machine could not be set up for it";
        let detail = match trouble {
            Some(trouble) => format!("Tell IT: {trouble}"),
            None => "The network's settings have not arrived. Try again, or tell IT.".to_owned(),
        };
        Problem::new(504, "not-enforced", title, detail)
    }

    pub(in crate::daemon) fn no_gateway(segment: &str) -> Problem {
        let title =
            format!("Your sign-in was accepted, but the gateway of {segment} does not answer");
        let detail = "The building's network may block UDP to it, or it may be down: tell IT. \
                      It connects by itself once the gateway answers.";
        Problem::new(504, "no-gateway", title, detail)
    }

    pub(in crate::daemon) fn not_signed_in() -> Problem {
        Problem::new(409, "not-signed-in", "Nobody is signed in on this machine", "")
    }

    pub(in crate::daemon) fn not_yours() -> Problem {
        let title = "Somebody else signed in on this machine";
        let detail = "Only they or IT can sign them out; your own sign-in would replace theirs.";
        Problem::new(403, "not-yours", title, detail)
    }

    pub(in crate::daemon) fn nothing_carried() -> Problem {
        let title = "Nobody is signed in on this machine, so nothing goes through";
        Problem::new(409, "not-signed-in", title, "Sign in with `partywall login` first.")
    }
}
