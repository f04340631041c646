//! The argument of `partywall why`: `ADDRESS[:PORT][/PROTOCOL]`.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use partywall_proto::nets::Protocol;

/// A destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) address: IpAddr,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

/// The text is no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "write an IP address, and a port and protocol where it matters: 10.2.0.5, 10.2.0.5:443, [fd00::5]:53/udp"
)]
pub(super) struct TargetError;

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (place, protocol) = match text.split_once('/') {
            Some((place, "tcp")) => (place, Some(Protocol::Tcp)),
            Some((place, "udp")) => (place, Some(Protocol::Udp)),
            Some((place, "icmp")) => (place, Some(Protocol::Icmp)),
            Some(_) => return Err(TargetError),
            None => (text, None),
        };
        let with_port = place.parse::<SocketAddr>().ok();
        let bare = place.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        match (with_port, bare, protocol) {
            (Some(_), _, Some(Protocol::Icmp)) => Err(TargetError),
            (Some(place), _, protocol) => Ok(Self {
                address: place.ip(),
                protocol: protocol.unwrap_or(Protocol::Tcp),
                port: place.port(),
            }),
            (None, Some(address), Some(Protocol::Icmp) | None) => {
                Ok(Self { address, protocol: Protocol::Icmp, port: 0 })
            }
            (None, Some(_), Some(Protocol::Tcp | Protocol::Udp)) | (None, None, _) => {
                Err(TargetError)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_means_tcp_and_none_means_a_ping() {
        let read = |text: &str| {
            let target: Target = text.parse().unwrap();
            (target.address.to_string(), target.protocol, target.port)
        };
        assert_eq!(read("10.2.0.5"), ("10.2.0.5".to_owned(), Protocol::Icmp, 0));
        assert_eq!(read("10.2.0.5:443"), ("10.2.0.5".to_owned(), Protocol::Tcp, 443));
        assert_eq!(read("10.2.0.5:53/udp"), ("10.2.0.5".to_owned(), Protocol::Udp, 53));
        assert_eq!(read("[fd00::5]:443/tcp"), ("fd00::5".to_owned(), Protocol::Tcp, 443));
        assert_eq!(read("fd00::5"), ("fd00::5".to_owned(), Protocol::Icmp, 0));
    }

    #[test]
    fn what_is_no_destination_is_refused_with_examples() {
        for bad in
            ["", "intranet", "10.2.0.5/sctp", "10.2.0.5/tcp", "10.2.0.5:1/icmp", "10.2:99999"]
        {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
