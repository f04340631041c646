//! Why a packet or a datagram was dropped: one closed list for counters, `why`, status and tests.
//!
//! The texts are stable: dashboards and the audit trail keep them. A new reason is a variant, its
//! sentence, a row in the table test and a line in the policy model's documentation.

use std::fmt;

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)*) => {
        /// Why something was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $name,)*
        }

        impl DropReason {
            /// Every reason, in the order of [`DropReason::index`].
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$name),*];

            /// The stable name, in kebab case.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The reason in one sentence, for people.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)* }
            }
        }
    };
}

drop_reasons! {
    // The tunnel's outside: datagrams.
    /// There is no overlay config: nobody is signed in, or the gateway carries no segment.
    NoConfig = "no-config",
    /// The datagram is not WireGuard: wrong type or wrong length.
    GarbageDatagram = "garbage-datagram",
    /// The datagram belongs to another shard, and none is there to take it.
    OtherShard = "other-shard",
    /// The handshake was made for another public key than ours.
    BadMac = "bad-mac",
    /// Handshakes come faster than they can be answered; the sender was sent a cookie.
    UnderLoad = "under-load",
    /// The handshake comes from a key that is no peer's.
    UnknownPeer = "unknown-peer",
    /// The datagram names a receiver index that was not given out.
    UnknownIndex = "unknown-index",
    /// The handshake does not hold: wrong preshared key, replayed, or not asked for.
    BadHandshake = "bad-handshake",
    /// The datagram names keys that have expired.
    NoKeys = "no-keys",
    /// The datagram was seen before, or is too old to tell.
    Replayed = "replayed",
    /// The datagram was not sealed with the peer's keys.
    Unauthentic = "unauthentic",
    /// The peer's address on the underlay is not known yet.
    NoEndpoint = "no-endpoint",
    /// The packet waited for a handshake that did not come, or too many waited.
    NoHandshake = "no-handshake",
    /// More was to be sent than the outbox holds.
    OutboxFull = "outbox-full",

    // The packet itself.
    /// The packet is no IP packet, or its lengths contradict each other.
    Malformed = "malformed",
    /// The packet is neither TCP nor UDP nor ICMP.
    UnsupportedProtocol = "unsupported-protocol",
    /// The packet has more extension headers than are walked, or one that is not known.
    ExtensionHeaders = "extension-headers",
    /// The packet asks for a route of its own (IPv4 source route, IPv6 routing header).
    SourceRoute = "source-route",
    /// An address is one that never travels: loopback, unspecified, or a group as source.
    Martian = "martian",

    /// The packet met congestion on the way, and its flow could not be told but by losing it.
    CongestionUnheard = "congestion-unheard",

    // Addresses.
    /// The destination is no peer's.
    NoRoute = "no-route",
    /// The source is not one that the sender may use.
    WrongSource = "wrong-source",
    /// The packet came to this device but is addressed to another.
    WrongDestination = "wrong-destination",

    // Policy.
    /// A rule denies the flow.
    Denied = "denied",
    /// No rule allows the flow.
    NoRule = "no-rule",
    /// The rule or the classes that allowed the flow are gone.
    FlowCut = "flow-cut",
    /// The table of flows, or this peer's share of it, is full.
    FlowTableFull = "flow-table-full",

    // State.
    /// A TCP packet from the middle of a conversation that nobody opened.
    TcpNoFlow = "tcp-no-flow",
    /// TCP flags that make no sense together, or not at this point.
    TcpBadFlags = "tcp-bad-flags",
    /// An ICMP error or reply that belongs to no live flow.
    IcmpNoFlow = "icmp-no-flow",
    /// An ICMP message that has no business in the overlay.
    IcmpType = "icmp-type",
    /// A first fragment that is too short to be judged.
    FragmentTooShort = "fragment-too-short",
    /// A later fragment whose first one did not pass before it.
    FragmentWithoutFirst = "fragment-without-first",
    /// A fragment that overlaps another, or comes in too many pieces.
    FragmentOverlap = "fragment-overlap",
    /// Too many fragmented packets are under way.
    FragmentTableFull = "fragment-table-full",
}

impl DropReason {
    /// Position in [`DropReason::ALL`], for arrays of counters.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_has_its_own_text_in_kebab_case_and_a_sentence() {
        let mut texts = BTreeSet::new();
        for (at, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), at);
            assert!(texts.insert(reason.text()));
            assert!(reason.text().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
            assert!(reason.sentence().ends_with('.'));
        }
    }

    #[test]
    fn what_the_controller_foretells_is_called_the_same_here() {
        for foretold in partywall_proto::admin::WhyDrop::ALL {
            let text = foretold.to_string();
            assert!(DropReason::ALL.iter().any(|it| it.text() == text), "{text} is no drop reason");
        }
    }
}
