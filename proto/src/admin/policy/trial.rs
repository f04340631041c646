//! The tests of a policy: what must be allowed and what must be refused, whatever the rules become.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use jiff::civil::DateTime;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::when::{DeviceClass, SignInStrength};
use crate::ids::{BuildingId, SegmentId, ServiceId, UserId};
use crate::nets::Protocol;
use crate::rules::Opener;

fn device() -> Opener {
    Opener::Device
}

/// One thing that must hold before a policy takes effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyTest {
    /// In words; shown where it fails.
    pub name: String,
    /// Whose session it is.
    pub given: Given,
    /// The far end of the flow.
    pub to: Destination,
    /// The device unless stated.
    #[serde(default = "device")]
    pub opened_by: Opener,
    /// What must come of it.
    pub expect: Expectation,
}

/// A session. What is left out may be anything: the test must hold whatever it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// Who is signed in.
    pub user: UserId,
    /// In which segment; needed where the policy has rules for several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<SegmentId>,
    /// On what class of device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceClass>,
    /// In which building the device stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub building: Option<BuildingId>,
    /// How the person signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_in: Option<SignInStrength>,
    /// When, as clocks show it in the policy's time zone: `2026-03-02T09:00`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub at: Option<DateTime>,
}

/// What must come of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Expectation {
    /// It may be opened.
    Allow,
    /// It may not, whether a rule denies it or none allows it.
    Refuse,
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Refuse => "refuse",
        })
    }
}

/// The far end of a tested flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "DestinationForm")]
pub enum Destination {
    /// All of a service of the policy: the test must hold for each of its addresses and ports.
    Service(ServiceId),
    /// One address and port.
    Endpoint(Endpoint),
}

/// How [`Destination`] is written.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
enum DestinationForm {
    Service(ServiceForm),
    Endpoint(Endpoint),
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
struct ServiceForm {
    service: ServiceId,
}

impl From<Destination> for DestinationForm {
    fn from(destination: Destination) -> Self {
        match destination {
            Destination::Service(service) => Self::Service(ServiceForm { service }),
            Destination::Endpoint(endpoint) => Self::Endpoint(endpoint),
        }
    }
}

crate::openapi::schema_of!(Destination = DestinationForm);

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Destination;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`{ service: NAME }` or an address such as \"10.1.0.10:443/tcp\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Destination, E> {
                text.parse().map(Destination::Endpoint).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Destination, A::Error> {
                let form = ServiceForm::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Destination::Service(form.service))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// One address, protocol and port, written `10.1.0.10:443/tcp`, `[fd10::10]:53/udp` or `10.1.0.10/icmp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    address: IpAddr,
    protocol: Protocol,
    port: u16,
}

impl Endpoint {
    /// An endpoint; `port` means nothing, and is kept as 0, where the protocol has none.
    pub fn new(address: IpAddr, protocol: Protocol, port: u16) -> Self {
        let port = match protocol {
            Protocol::Tcp | Protocol::Udp => port,
            Protocol::Icmp => 0,
        };
        Self { address, protocol, port }
    }

    /// Where.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Over what.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The responder's port; 0 for ICMP.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no address to test; write \"10.1.0.10:443/tcp\", \"[fd10::10]:53/udp\" or \"10.1.0.10/icmp\""
)]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let refuse = || EndpointError(text.chars().take(80).collect());
        let (place, protocol) = text.rsplit_once('/').ok_or_else(refuse)?;
        let with_port = |protocol| {
            let place: std::net::SocketAddr = place.parse().map_err(|_| refuse())?;
            Ok(Self::new(place.ip(), protocol, place.port()))
        };
        match protocol {
            "tcp" => with_port(Protocol::Tcp),
            "udp" => with_port(Protocol::Udp),
            "icmp" => {
                let bare = place.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
                let address = bare.unwrap_or(place).parse().map_err(|_| refuse())?;
                Ok(Self::new(address, Protocol::Icmp, 0))
            }
            _unknown => Err(refuse()),
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> String {
        endpoint.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Tcp | Protocol::Udp => {
                let place = std::net::SocketAddr::new(self.address, self.port);
                write!(f, "{place}/{}", self.protocol)
            }
            Protocol::Icmp => write!(f, "{}/icmp", self.address),
        }
    }
}

crate::openapi::text_schema!(Endpoint);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_as_it_is_written() {
        for good in ["10.1.0.10:443/tcp", "[fd10::10]:53/udp", "10.1.0.10/icmp", "fd10::10/icmp"] {
            assert_eq!(good.parse::<Endpoint>().unwrap().to_string(), good);
        }
        for bad in
            ["", "10.1.0.10", "10.1.0.10/tcp", "10.1.0.10:1/icmp", "10.1.0.10:1/sctp", "/tcp"]
        {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_test_is_read_and_written_as_the_same() {
        let text = r#"{"name":"staff reach the intranet","given":{"user":"alice@council","device":"managed","building":"hq","sign_in":"code","at":"2026-03-02T09:00"},"to":{"service":"intranet"},"expect":"allow"}"#;
        let test: PolicyTest = serde_json::from_str(text).unwrap();
        assert_eq!(test.opened_by, Opener::Device);
        let again = serde_json::to_string(&test).unwrap();
        assert_eq!(serde_json::from_str::<PolicyTest>(&again).unwrap(), test);
        for (known, unknown) in [
            (r#""expect":"allow""#, r#""expect":"permit""#),
            (r#"{"service":"intranet"}"#, r#"{"services":"intranet"}"#),
            (r#"{"service":"intranet"}"#, r#""intranet""#),
            (r#""at":"2026-03-02T09:00""#, r#""at":"09:00""#),
        ] {
            let typo = text.replace(known, unknown);
            assert!(serde_json::from_str::<PolicyTest>(&typo).is_err(), "{unknown} was taken");
        }
    }
}
