//! What a policy of a large organisation costs the controller: compiling it, following one person's
//! change, and proving it. These are pure functions, without what surrounds them (the store, signing,
//! sending); one person's change, and why they are let through or refused, are measured through the whole controller too.
//!
//! Everybody has a session, which is the most that there can be to do.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use partywall_controller::domain::policy::{Compiled, Facts};
use partywall_controller::domain::prover::{
    AgentFacts, Evidence, PeerFacts, RuleList, SegmentFacts, prove,
};
use partywall_proto::admin::{DeviceClass, PolicySpec, SignInStrength};
use partywall_proto::ids::{AgentId, BuildingId, GroupId, SegmentId, UserId};
use partywall_proto::nets::Prefix;
use partywall_proto::rules::{ClassId, Rule};
use serde_json::{Value, json};

use super::{Better, Row, person};

pub(super) const USERS: u32 = 10_000;
pub(super) const GROUPS: u32 = 200;
const RULES: u32 = 2_000;
pub(super) const GATEWAYS: u32 = 20;
/// As many as people are in.
const GROUPS_OF_A_USER: u32 = 3;

const FULL_BAR_MS: f64 = 1000.0;
const ONE_USER_BAR_MS: f64 = 10.0;
const PROOF_BAR_MS: f64 = 2000.0;
const WHY_BAR_MS: f64 = 20.0;

/// Overlay addresses begin here.
const POOL: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);

/// Measures `rounds` times; `told` hears how it goes.
///
/// # Errors
/// The policy is not proved, or does not compile to what it says.
pub fn policy(rounds: usize, mut told: impl FnMut(&str)) -> Result<Vec<Row>> {
    let world = World::new()?;
    let (mut full, mut one, mut proof) = (Vec::new(), Vec::new(), Vec::new());
    let mut rules = 0;
    for round in 1..=rounds {
        told(&format!("round {round} of {rounds}"));
        let began = Instant::now();
        let compiled = Compiled::of(&world.policy, &world.segment);
        let devices = world.devices(&compiled);
        full.push(ms(began));
        rules = compiled.rules().len();
        ensure!(rules >= RULES as usize, "only {rules} rules came of the policy");

        let user = world.users.get(round % world.users.len()).context("no users")?;
        let began = Instant::now();
        let classes = compiled.classes_of(&user.facts(&world.building), world.now);
        let own = compiled.rules_for(&classes);
        one.push(ms(began));
        ensure!(!own.is_empty(), "{} may reach nothing", user.name);

        let began = Instant::now();
        let proved = prove(&world.evidence(&compiled, &devices));
        proof.push(ms(began));
        ensure!(proved.holds(), "not proved: {}", proved.refutations[0]);
    }
    let person = person::measured(rounds, &mut told)?;
    let shown = [f64::from(u32::try_from(rules)?)];
    Ok(vec![
        Row::new("policy compiled, full", "ms", &full, FULL_BAR_MS, Better::Lower),
        Row::new(
            "policy compiled, one person's change",
            "ms",
            &one,
            ONE_USER_BAR_MS,
            Better::Lower,
        ),
        Row::shown("a person's groups changed, through the controller", "ms", &person.changed_ms),
        Row::new("why, by App::why without HTTP", "ms", &person.why_ms, WHY_BAR_MS, Better::Lower),
        Row::new("policy proved", "ms", &proof, PROOF_BAR_MS, Better::Lower),
        Row::shown("rules that it compiles to", "rules", &shown),
    ])
}

fn ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

/// A person with a session.
struct User {
    name: UserId,
    groups: Vec<GroupId>,
    agent: AgentId,
    address: [IpAddr; 1],
    host: [Prefix; 1],
}

impl User {
    fn facts<'a>(&'a self, building: &'a BuildingId) -> Facts<'a> {
        Facts {
            user: &self.name,
            groups: &self.groups,
            device: DeviceClass::Managed,
            building: Some(building),
            sign_in: SignInStrength::Code,
        }
    }
}

/// The groups that a person is in.
pub(super) fn groups_of(number: u32) -> Result<Vec<GroupId>> {
    let group = |at: u32| Ok(format!("group-{}", (number * 7 + at * 61) % GROUPS).parse()?);
    (0..GROUPS_OF_A_USER).map(group).collect()
}

/// What one device enforces.
struct Device {
    classes: Vec<ClassId>,
    rules: Vec<Rule>,
}

/// One organisation's policy, people and gateways.
struct World {
    policy: PolicySpec,
    segment: SegmentId,
    building: BuildingId,
    pools: [Prefix; 1],
    prefixes: [Prefix; 1],
    gateways: Vec<AgentId>,
    users: Vec<User>,
    now: Timestamp,
}

impl World {
    fn new() -> Result<Self> {
        let user = |number: u32| -> Result<User> {
            let address = IpAddr::from(Ipv4Addr::from(u32::from(POOL) + 16 + number));
            Ok(User {
                name: format!("user-{number}@bench").parse()?,
                groups: groups_of(number)?,
                agent: format!("device/d{number:05}").parse()?,
                address: [address],
                host: [Prefix::host(address)],
            })
        };
        let gateway = |number: u32| Ok(format!("gateway/g{number:02}").parse()?);
        Ok(Self {
            policy: serde_json::from_value(document())?,
            segment: "bench".parse()?,
            building: "hq".parse()?,
            pools: ["100.64.0.0/16".parse()?],
            prefixes: ["10.0.0.0/8".parse()?],
            gateways: (0..GATEWAYS).map(gateway).collect::<Result<_>>()?,
            users: (0..USERS).map(user).collect::<Result<_>>()?,
            now: Timestamp::now(),
        })
    }

    fn devices(&self, compiled: &Compiled) -> Vec<Device> {
        let device = |user: &User| {
            let classes = compiled.classes_of(&user.facts(&self.building), self.now);
            Device { rules: compiled.rules_for(&classes), classes }
        };
        self.users.iter().map(device).collect()
    }

    fn evidence<'a>(&'a self, compiled: &'a Compiled, devices: &'a [Device]) -> Evidence<'a> {
        let both = || self.users.iter().zip(devices);
        let peers = || {
            both().map(|(user, device)| PeerFacts {
                agent: &user.agent,
                allowed_ips: &user.host,
                classes: &device.classes,
            })
        };
        let gateways = self.gateways.iter().map(|agent| AgentFacts {
            agent,
            addresses: &[],
            rules: RuleList::Listed(compiled.rules()),
            peers: peers().collect(),
        });
        let devices = both().map(|(user, device)| AgentFacts {
            agent: &user.agent,
            addresses: &user.address,
            rules: RuleList::Listed(&device.rules),
            peers: Vec::new(),
        });
        let segment = SegmentFacts {
            segment: &self.segment,
            pools: &self.pools,
            prefixes: &self.prefixes,
            agents: gateways.chain(devices).collect(),
        };
        Evidence { segments: vec![segment], publications: &[] }
    }
}

/// Most rules let one or two groups reach a server; some a network, some refuse, some hold in hours or on
/// managed devices only.
pub(super) fn document() -> Value {
    let rule = |number: u32| {
        let (high, low) = (number / 256 % 256, number % 256);
        let prefix = match number % 10 {
            0 => format!("10.{}.{low}.0/24", 64 + high),
            _ => format!("10.{high}.{low}.{}/32", 1 + number % 250),
        };
        let when = match number % 20 {
            3 => json!({"devices": ["managed"]}),
            8 => json!({"hours": [{"days": ["mon", "tue"], "from": "08:00", "until": "18:00"}]}),
            _ => json!({}),
        };
        let groups = [number % GROUPS, (number * 13 + 1) % GROUPS].map(|it| format!("group-{it}"));
        json!({
            "name": format!("rule-{number}"), "who": {"groups": groups}, "when": when,
            "what": [{"net": {"prefixes": [prefix], "protocol": "tcp", "ports": [443, "8000-8100"]}}],
            "action": if number % 25 == 7 { "deny" } else { "allow" },
        })
    };
    let rules: Vec<Value> = (0..RULES).map(rule).collect();
    json!({"version": 1, "organisation": "bench", "segments": {"bench": {"rules": rules}}})
}
