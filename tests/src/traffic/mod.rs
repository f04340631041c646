//! A known set of conversations through a tunnel, and whether flow records tell of exactly these.
//!
//! Both ends are ours and keep count. What they opened is compared with what gateways say, one for one;
//! no flow's ports are used a second time, so that a name stands for one conversation only.

mod account;
mod drive;
mod echo;

use std::net::{IpAddr, SocketAddr};

use partywall_proto::nets::Protocol;

pub use account::{Account, account};
pub use drive::{drive, refused};
pub use echo::Echo;

/// Where the echo servers listen: free on every host of the lab.
pub const PORTS: [u16; 4] = [9000, 9001, 9002, 9003];

/// Local ports begin here, and end below those that the system gives out (`ip_local_port_range`).
const FIRST_PORT: u16 = 10_000;
const LAST_PORT: u16 = 32_000;

/// Conversations to open.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The device's address.
    pub from: IpAddr,
    /// The server's.
    pub to: IpAddr,
    /// The first one's number. A number makes a conversation what it is, and is used once.
    pub first: u32,
    /// How many: a multiple of the number of [`PORTS`].
    pub count: u32,
    /// Most in a second; none for as many as it can.
    pub per_s: Option<u32>,
}

/// A conversation that took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversation {
    /// What was spoken.
    pub protocol: Protocol,
    /// The device's end.
    pub from: SocketAddr,
    /// The server's end.
    pub to: SocketAddr,
    /// Bytes of payload in each direction.
    pub payload_bytes: u64,
    /// Datagrams in each direction; 0 for TCP, which cuts as it likes.
    pub datagrams: u64,
}

impl Plan {
    /// The conversations, in groups that share a local port.
    fn groups(self) -> impl Iterator<Item = [Conversation; PORTS.len()]> {
        let ports = PORTS.len() as u32;
        assert!(self.first.is_multiple_of(ports) && self.count.is_multiple_of(ports));
        let groups = self.first / ports..(self.first + self.count) / ports;
        assert!(groups.end <= u32::from(LAST_PORT - FIRST_PORT), "no local ports are left");
        groups.map(move |group| {
            let from = SocketAddr::new(self.from, FIRST_PORT + group as u16);
            let number = |at: u16| group * ports + u32::from(at - PORTS[0]);
            PORTS.map(|port| {
                let number = u64::from(number(port));
                let to = SocketAddr::new(self.to, port);
                match group % 2 {
                    0 => {
                        let payload_bytes = 1 + number * 131 % 20_000;
                        let protocol = Protocol::Tcp;
                        Conversation { protocol, from, to, payload_bytes, datagrams: 0 }
                    }
                    _ => {
                        let datagrams = 1 + number % 3;
                        let payload_bytes = datagrams * (1 + number * 37 % 1100);
                        let protocol = Protocol::Udp;
                        Conversation { protocol, from, to, payload_bytes, datagrams }
                    }
                }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_conversations_have_the_same_name() {
        let plan = |first, count| Plan {
            from: IpAddr::from([100, 64, 0, 1]),
            to: IpAddr::from([10, 1, 0, 10]),
            first,
            count,
            per_s: None,
        };
        let all: Vec<_> =
            plan(0, 40_000).groups().chain(plan(40_000, 10_000).groups()).flatten().collect();
        let names: BTreeSet<_> =
            all.iter().map(|it| (it.protocol.to_string(), it.from, it.to)).collect();
        assert_eq!((all.len(), names.len()), (50_000, 50_000));
    }
}
