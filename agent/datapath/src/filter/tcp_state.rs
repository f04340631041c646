//! How far a TCP connection has come, as seen from between its two ends.
//!
//! Sequence numbers are not followed: the ends do that, and a tunnel lets nobody else speak. What
//! is held is who opened the connection and that it was answered, so that a port scan or a packet
//! from the middle of nowhere does not keep a flow alive for hours.

use std::time::Duration;

use crate::packet::TcpFlags;

/// Five SYN retries of Linux take 63 seconds (tcp_syn_retries); each of them starts this anew.
const OPENING: Duration = Duration::from_secs(60);
/// RFC 5382 REQ-5: at least 2 hours and 4 minutes, twice the interval of keepalives less a probe.
const OPEN: Duration = Duration::from_secs(2 * 3600 + 4 * 60);
/// RFC 5382 REQ-5: at least 4 minutes while a connection closes.
const CLOSING: Duration = Duration::from_secs(4 * 60);
/// Long enough for the last acknowledgements and for retransmitted ends.
const CLOSED: Duration = Duration::from_secs(10);

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpState {
    /// The originator sent its SYN.
    Opening,
    /// The responder answered with SYN and ACK.
    Answered,
    /// Found in mid-stream, and so far only this end was heard.
    PickedUp {
        /// Whether that was the originator.
        originator: bool,
    },
    /// Data flows.
    Open,
    /// One end has finished.
    Closing {
        /// Whether that was the originator.
        originator: bool,
    },
    /// Both ends have finished, or one has reset.
    Closed,
}

/// Flags that make no sense at this point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("TCP flags make no sense at this point of the connection")]
pub struct OutOfPlace;

impl TcpState {
    /// The state after a segment with `flags`, sent by the originator or by the responder.
    ///
    /// # Errors
    /// The responder asks to open, or the originator answers: they hold each other's part.
    pub fn after(self, originator: bool, flags: TcpFlags) -> Result<Self, OutOfPlace> {
        if flags.syn() && flags.ack() == originator {
            return Err(OutOfPlace);
        }
        if flags.rst() {
            return Ok(Self::Closed);
        }
        if flags.syn() {
            // Anything but the first answer is a repetition or a challenge (RFC 5961 §4).
            return Ok(match self {
                Self::Opening if !originator => Self::Answered,
                Self::Opening
                | Self::Answered
                | Self::PickedUp { .. }
                | Self::Open
                | Self::Closing { .. }
                | Self::Closed => self,
            });
        }
        Ok(match self {
            // Before the answer an ACK is a challenge (RFC 9293 §3.5.1), after it the third step.
            Self::Opening => self,
            Self::Answered if flags.fin() => Self::Closing { originator },
            Self::Answered if originator => Self::Open,
            Self::Answered => self,
            Self::PickedUp { .. } | Self::Open if flags.fin() => Self::Closing { originator },
            Self::PickedUp { originator: heard } if heard != originator => Self::Open,
            Self::PickedUp { .. } | Self::Open => self,
            Self::Closing { originator: first } if flags.fin() && first != originator => {
                Self::Closed
            }
            Self::Closing { .. } | Self::Closed => self,
        })
    }

    /// How long the flow is held without another packet.
    pub fn idle_timeout(self) -> Duration {
        match self {
            Self::Opening | Self::Answered | Self::PickedUp { .. } => OPENING,
            Self::Open => OPEN,
            Self::Closing { .. } => CLOSING,
            Self::Closed => CLOSED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIN: u8 = 0x11;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;

    /// Plays segments of originator (true) and responder (false).
    fn play(mut state: TcpState, segments: &[(bool, u8)]) -> TcpState {
        for (originator, flags) in segments {
            state = state.after(*originator, TcpFlags::new(*flags)).unwrap();
        }
        state
    }

    #[test]
    fn a_connection_opens_in_three_steps_and_closes_from_both_ends() {
        let open = play(TcpState::Opening, &[(false, SYN | ACK), (true, ACK)]);
        assert_eq!(open, TcpState::Open);
        let half = play(open, &[(false, FIN), (true, ACK)]);
        assert_eq!(half, TcpState::Closing { originator: false });
        assert_eq!(play(half, &[(false, FIN)]), half, "one end alone does not close both");
        assert_eq!(play(half, &[(true, FIN), (false, ACK)]), TcpState::Closed);
        assert_eq!(play(open, &[(false, RST)]), TcpState::Closed);
    }

    #[test]
    fn an_unanswered_connection_is_not_held_for_hours() {
        let scanned = play(TcpState::Opening, &[(true, ACK), (true, ACK)]);
        assert!(scanned.idle_timeout() < Duration::from_secs(120));
        let found = play(TcpState::PickedUp { originator: true }, &[(true, ACK)]);
        assert!(found.idle_timeout() < Duration::from_secs(120));
        assert_eq!(play(found, &[(false, ACK)]), TcpState::Open);
    }

    #[test]
    fn the_ends_do_not_play_each_others_part() {
        let syn = TcpFlags::new(SYN);
        let answer = TcpFlags::new(SYN | ACK);
        assert_eq!(TcpState::Opening.after(false, syn), Err(OutOfPlace));
        assert_eq!(TcpState::Opening.after(true, answer), Err(OutOfPlace));
    }
}
