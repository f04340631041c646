//! Two organisations that use the same addresses inside, with a policy each, and the configs that the
//! controller would give their agents.

use std::net::IpAddr;

use jiff::Timestamp;
use partywall_controller::domain::overlay::{Admission, Frame, device_config, gateway_config};
use partywall_controller::domain::policy::{Compiled, Facts, Opening};
use partywall_controller::domain::prover::{AgentFacts, Evidence, Proof, SegmentFacts, prove};
use partywall_controller::domain::session::{PskSecret, SessionRecord};
use partywall_proto::admin::{DeviceClass, Endpoint, GatewaySpec, SegmentSpec, SignInStrength};
use partywall_proto::ids::GroupId;
use partywall_proto::keys::WireguardKey;
use partywall_proto::nets::{Prefix, Protocol};
use partywall_proto::overlay::{Generation, OverlayConfig};
use partywall_proto::rules::Opener;
use serde_json::json;

use crate::dice::Dice;
use crate::nets::{about, prefix};
use crate::written::{GROUPS, Person, Written};

/// Both.
pub(crate) struct World {
    pub(crate) sides: [Segment; 2],
}

/// One organisation's segment: what was written, and what agents are told.
pub(crate) struct Segment {
    pub(crate) spec: SegmentSpec,
    pub(crate) written: Written,
    pub(crate) people: Vec<Person>,
    pub(crate) gateway: OverlayConfig,
    /// Of the people, in their order.
    pub(crate) devices: Vec<OverlayConfig>,
}

impl World {
    pub(crate) fn random(dice: &mut Dice) -> Self {
        let council =
            spec("council", &["100.64.0.0/24", "fd00:c::/64"], &["10.0.0.0/8", "fd10::/16"]);
        let nhs = spec(
            "nhs",
            &["100.64.1.0/24", "fd00:9::/64"],
            &["10.0.0.0/8", "172.16.0.0/12", "fd20::/16"],
        );
        Self { sides: [council, nhs].map(|spec| Segment::random(spec, dice)) }
    }

    pub(crate) fn prove(&self) -> Proof {
        let segments = self.sides.iter().map(|side| SegmentFacts {
            segment: &side.spec.name,
            pools: &side.spec.pools,
            prefixes: &side.spec.prefixes,
            agents: side.devices.iter().chain([&side.gateway]).map(AgentFacts::from).collect(),
        });
        prove(&Evidence { segments: segments.collect(), publications: &[] })
    }

    /// Something to try on one side: at the edges of what either side's rules name, and of pools.
    pub(crate) fn opening(&self, side: usize, dice: &mut Dice) -> Opening {
        let of = if dice.percent(80) { side } else { 1 - side };
        let all = self.sides[of].written.nets();
        let net = *dice.pick(&all);
        let prefix = match dice.below(10) {
            0 => dice.pick(&self.sides[of].spec.pools),
            1 => dice.pick(&self.sides[of].spec.prefixes),
            _ => &net.prefix,
        };
        let some = *dice.pick(&[Protocol::Tcp, Protocol::Udp, Protocol::Icmp]);
        let protocol = net.protocol.filter(|_| dice.percent(80)).unwrap_or(some);
        let port = match net.ports.first().map(|_| *dice.pick(&net.ports)) {
            Some((from, to)) => {
                *dice.pick(&[from, to, from.wrapping_sub(1), to.wrapping_add(1), from / 2 + to / 2])
            }
            None => dice.bits() as u16,
        };
        let opener = if dice.percent(70) { Opener::Device } else { Opener::Network };
        Opening { opener, far: Endpoint::new(about(prefix, dice), protocol, port) }
    }

    /// Whether an address is of the other side's network and not of this one's.
    pub(crate) fn is_foreign(&self, side: usize, address: IpAddr) -> bool {
        let lies = |of: &[Prefix]| of.iter().any(|prefix| prefix.holds(address));
        let (own, other) = (&self.sides[side].spec, &self.sides[1 - side].spec);
        lies(&other.pools) || (lies(&other.prefixes) && !lies(&own.prefixes) && !lies(&own.pools))
    }
}

impl Segment {
    fn random(spec: SegmentSpec, dice: &mut Dice) -> Self {
        let inside: Vec<Prefix> = spec.prefixes.iter().chain(&spec.pools).copied().collect();
        let written = Written::random(&inside, dice);
        let people: Vec<Person> = (0..3)
            .map(|number| Person {
                name: format!("p{number}"),
                groups: GROUPS.iter().copied().filter(|_| dice.percent(40)).collect(),
                device: *dice.pick(&[DeviceClass::Managed, DeviceClass::SharedDesk]),
            })
            .collect();
        let compiled = Compiled::of(&written.spec(spec.name.as_str()), &spec.name);
        let records: Vec<_> =
            people.iter().zip(7..).map(|(person, host)| record(&spec, person, host)).collect();
        let admissions: Vec<_> = people
            .iter()
            .zip(&records)
            .zip(1..)
            .map(|((person, session), key)| Admission {
                session,
                wireguard_key: WireguardKey::from([key; 32]),
                classes: classes(&compiled, person, session),
                psk: &session.secret,
            })
            .collect();
        let frame = Frame { generation: Generation(1), issued_at: Timestamp::UNIX_EPOCH };
        let gateway: GatewaySpec = serde_json::from_value(json!({
            "name": format!("gw-{}", spec.name), "segment": spec.name,
            "endpoints": ["192.0.2.1:51820"], "forwarding": "nat",
        }))
        .unwrap();
        let gateways = [(&gateway, WireguardKey::from([9; 32]))];
        let device =
            |it: &Admission<'_>| device_config(frame, &spec, None, &gateways, &compiled, it);
        Self {
            devices: admissions.iter().map(device).collect(),
            gateway: gateway_config(frame, &spec, &gateway, &compiled, admissions.into_iter()),
            spec,
            written,
            people,
        }
    }
}

fn spec(name: &str, pools: &[&str], prefixes: &[&str]) -> SegmentSpec {
    let all = |texts: &[&str]| texts.iter().map(|text| prefix(text)).collect::<Vec<_>>();
    serde_json::from_value(json!({
        "name": name, "organisation": name, "title": name, "tunnel": "split",
        "pools": all(pools), "prefixes": all(prefixes),
    }))
    .unwrap()
}

/// A session on the device that is this person's, at this place in each pool.
fn record(spec: &SegmentSpec, person: &Person, host: u8) -> SessionRecord {
    let place = |pool: &Prefix| match pool.address() {
        IpAddr::V4(first) => IpAddr::from((first.to_bits() + u32::from(host)).to_be_bytes()),
        IpAddr::V6(first) => IpAddr::from((first.to_bits() + u128::from(host)).to_be_bytes()),
    };
    SessionRecord {
        id: format!("s-{}", person.name).parse().unwrap(),
        user: format!("{}@{}", person.name, spec.organisation).parse().unwrap(),
        device: format!("desk-{}-{}", spec.name, person.name).parse().unwrap(),
        segment: spec.name.clone(),
        addresses: spec.pools.iter().map(place).collect(),
        sign_in: SignInStrength::Code,
        began_at: Timestamp::UNIX_EPOCH,
        ends_at: Timestamp::MAX,
        secret: PskSecret::from_bytes([host; 32]),
    }
}

fn classes(
    compiled: &Compiled,
    person: &Person,
    session: &SessionRecord,
) -> Vec<partywall_proto::rules::ClassId> {
    let groups: Vec<GroupId> = person.groups.iter().map(|name| name.parse().unwrap()).collect();
    let facts = Facts {
        user: &session.user,
        groups: &groups,
        device: person.device,
        building: None,
        sign_in: SignInStrength::Code,
    };
    compiled.classes_of(&facts, Timestamp::UNIX_EPOCH)
}
