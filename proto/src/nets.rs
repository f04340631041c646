//! Prefixes, protocols and ports.
//!
//! A [`Prefix`] has no host bits set. `10.0.0.1/8` is refused, because whoever wrote it meant
//! something else: either `10.0.0.0/8` or `10.0.0.1/32`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// Why a text is no prefix, protocol or port range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: {rule}")]
pub struct NetError {
    /// What was expected.
    pub kind: &'static str,
    /// The refused text, cut to 64 characters.
    pub text: String,
    /// What to write instead.
    pub rule: String,
}

impl NetError {
    fn new(kind: &'static str, text: &str, rule: impl Into<String>) -> Self {
        Self { kind, text: text.chars().take(64).collect(), rule: rule.into() }
    }
}

macro_rules! string_serde {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = NetError;

            fn try_from(text: String) -> Result<Self, NetError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}

/// An IPv4 or IPv6 prefix without host bits. A bare address is read as a /32 or /128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(IpNetwork);

string_serde!(Prefix);

impl Prefix {
    /// The prefix that holds this one address.
    pub fn host(address: IpAddr) -> Self {
        Self(IpNetwork::from(address))
    }

    /// The first address of the prefix.
    pub fn address(&self) -> IpAddr {
        self.0.ip()
    }

    /// Prefix length in bits.
    pub fn length(&self) -> u8 {
        self.0.prefix()
    }

    /// Whether this is an IPv4 prefix.
    pub fn is_ipv4(&self) -> bool {
        self.0.is_ipv4()
    }

    /// The prefix as the `ipnetwork` crate has it.
    pub fn network(&self) -> IpNetwork {
        self.0
    }

    /// Whether `address` lies in this prefix.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.0.contains(address)
    }

    /// Whether every address of `other` lies in this prefix.
    pub fn covers(&self, other: &Prefix) -> bool {
        self.is_ipv4() == other.is_ipv4()
            && self.length() <= other.length()
            && self.0.contains(other.address())
    }

    /// Whether any address lies in both prefixes.
    pub fn overlaps(&self, other: &Prefix) -> bool {
        self.covers(other) || other.covers(self)
    }
}

impl FromStr for Prefix {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let net: IpNetwork = text.parse().map_err(|_| {
            NetError::new("prefix", text, "write an address and a length, as in 10.0.0.0/8")
        })?;
        if net.ip() != net.network() {
            let rule = format!(
                "it has host bits set; write {}/{} for the network or {} for the one address",
                net.network(),
                net.prefix(),
                net.ip()
            );
            return Err(NetError::new("prefix", text, rule));
        }
        Ok(Self(net))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a rule can tell apart above IP. ICMP covers both ICMP and ICMPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// IP protocol 6 (RFC 9293).
    Tcp,
    /// IP protocol 17 (RFC 768).
    Udp,
    /// Echo of ICMP (RFC 792) and ICMPv6 (RFC 4443). Errors follow the flow that they quote.
    Icmp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

/// An inclusive range of ports, written `443` or `8000-8999`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "PortText", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// YAML writes a single port as a number and a range as a string; both are read.
#[derive(Deserialize)]
#[serde(untagged)]
enum PortText {
    Number(u16),
    Text(String),
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// The range of one port.
    pub fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// The lowest port.
    pub fn first(&self) -> u16 {
        self.first
    }

    /// The highest port, included.
    pub fn last(&self) -> u16 {
        self.last
    }

    /// Whether `port` lies in the range.
    pub fn holds(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl TryFrom<PortText> for PortRange {
    type Error = NetError;

    fn try_from(text: PortText) -> Result<Self, NetError> {
        match text {
            PortText::Number(port) => Ok(Self::single(port)),
            PortText::Text(text) => text.parse(),
        }
    }
}

impl FromStr for PortRange {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let refuse = |rule: &str| NetError::new("port range", text, rule);
        let port = |part: &str| {
            part.parse::<u16>().map_err(|_| refuse("ports are whole numbers from 0 to 65535"))
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first > last {
            return Err(refuse("the first port is higher than the last"));
        }
        Ok(Self { first, last })
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> String {
        range.to_string()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

crate::openapi::text_schema!(Prefix);

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for PortRange {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{Object, SchemaType, Type};
        let mut either = Object::new();
        either.schema_type = SchemaType::Array(vec![Type::Integer, Type::String]);
        either.description = Some("A port, as in 443, or a range, as in \"8000-8099\".".to_owned());
        either.into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for PortRange {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_prefix_with_host_bits_is_refused_and_both_readings_are_offered() {
        let refused = "10.0.0.1/8".parse::<Prefix>().unwrap_err().to_string();
        assert!(refused.contains("10.0.0.0/8") && refused.contains("10.0.0.1"), "{refused}");
    }

    #[test]
    fn a_bare_address_is_the_prefix_of_one() {
        assert_eq!("10.1.2.3".parse::<Prefix>().unwrap().length(), 32);
        assert_eq!("fd00::1".parse::<Prefix>().unwrap().length(), 128);
    }

    #[test]
    fn families_never_overlap() {
        let (four, six): (Prefix, Prefix) = ("0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap());
        assert!(!four.overlaps(&six) && !six.covers(&four));
    }

    #[test]
    fn ports_are_read_from_numbers_and_from_text() {
        let ports: Vec<PortRange> = serde_json::from_str(r#"[443, "22", "8000-8999"]"#).unwrap();
        let shown: Vec<String> = ports.iter().map(PortRange::to_string).collect();
        assert_eq!(shown, ["443", "22", "8000-8999"]);
        for bad in ["", "-", "9-1", "65536", "1-", "a", "1-2-3"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad:?} was taken for ports");
        }
    }

    proptest! {
        #[test]
        fn covering_means_overlapping_and_holding_the_first_address(
            a in any::<u32>(), la in 0u8..=32, b in any::<u32>(), lb in 0u8..=32,
        ) {
            let prefix = |bits: u32, length: u8| {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                format!("{}/{length}", std::net::Ipv4Addr::from(bits & mask)).parse::<Prefix>().unwrap()
            };
            let (a, b) = (prefix(a, la), prefix(b, lb));
            prop_assert_eq!(a.covers(&b), a.overlaps(&b) && a.length() <= b.length());
            prop_assert_eq!(a.overlaps(&b), a.holds(b.address()) || b.holds(a.address()));
        }
    }
}
