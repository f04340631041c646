//! What the prover says against what the data path does: random policies of two organisations, compiled
//! as the controller compiles them, and packets at the edges of everything that they name.
//!
//! Three readers must agree on every packet: the policy as it was written, the prover's sets, and the
//! filter at each end. Then single rules are broken on purpose, and all that has an effect must be
//! found by the prover and by the packets.
#![expect(clippy::unwrap_used, reason = "a step that fails ends its test where it stands")]

mod dice;
mod ends;
mod fault;
mod nets;
mod world;
mod written;

use std::collections::BTreeMap;
use std::num::NonZero;

use partywall_controller::domain::policy::Opening;
use partywall_controller::domain::prover::{Flaw, Reach};

use dice::Dice;
use ends::Ends;
use fault::{Fault, Place};
use world::World;

/// Pairs of policies.
const WORLDS: u64 = 1000;
/// Packets for each: a million in all.
const PACKETS: usize = 1000;
/// Worlds in which each fault is put in each place.
const BROKEN: u64 = 60;
/// Packets for each of these.
const PACKETS_BROKEN: usize = 600;

#[test]
fn the_policy_the_prover_and_both_ends_agree_on_a_million_packets() {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let tally = std::thread::scope(|scope| {
        let share = |thread: u64| {
            scope.spawn(move || {
                (thread..WORLDS).step_by(threads as usize).map(agree).collect::<Vec<_>>()
            })
        };
        let shares: Vec<_> = (0..threads).map(share).collect();
        shares.into_iter().flat_map(|share| share.join().unwrap()).collect::<Vec<_>>()
    });
    let tried: usize = tally.iter().map(|(tried, _)| tried).sum();
    let passed: usize = tally.iter().map(|(_, passed)| passed).sum();
    println!("{tried} packets, {passed} of them allowed, and no disagreement");
    assert!(tried >= 1_000_000);
    // Packets that all meet the same answer would prove little.
    assert!(passed > tried / 10 && passed < tried * 9 / 10, "{passed} of {tried} passed");
}

/// One world: packets tried, and packets that passed.
fn agree(seed: u64) -> (usize, usize) {
    let mut dice = Dice::of_seed(seed);
    let world = World::random(&mut dice);
    let proof = world.prove();
    assert!(proof.holds(), "seed {seed}: {}", proof.refutations[0]);
    let mut passed = 0;
    for side in 0..2 {
        let segment = &world.sides[side];
        let mut ends = Ends::of(segment);
        let reach: Vec<_> = (0..segment.people.len())
            .map(|person| {
                let at_gateway = Reach::of(&segment.gateway.rules, segment.classes(person));
                (Reach::of(&segment.devices[person].rules, &[]), at_gateway)
            })
            .collect();
        for _ in 0..PACKETS / 2 {
            let person = dice.below(segment.people.len());
            let opening = world.opening(side, &mut dice);
            let meant = segment.written.allows(&segment.people[person], &opening);
            let verdicts = ends.judge(person, &opening);
            let (device, gateway) = &reach[person];
            let proved = (device.allows(&opening).is_some(), gateway.allows(&opening).is_some());
            let (name, who) = (&segment.spec.name, &segment.people[person].name);
            assert_eq!(
                ((verdicts.device, verdicts.gateway), proved),
                ((meant, meant), (meant, meant)),
                "seed {seed}: {who} of {name}, {opening}: the filter at device and gateway, then the \
                 prover at both, against the policy"
            );
            let foreign = world.is_foreign(side, opening.far.address());
            assert!(!(meant && foreign), "seed {seed}: {opening} crosses from {name}");
            passed += usize::from(meant);
        }
    }
    (PACKETS / 2 * 2, passed)
}

/// How often a fault was found, of how many that were put in.
#[derive(Debug, Default, Clone, Copy)]
struct Found {
    put: usize,
    by_prover: usize,
    by_packets: usize,
}

#[test]
fn what_a_broken_rule_lets_pass_is_found_by_the_prover_and_by_packets() {
    let mut table = BTreeMap::new();
    for (fault, number) in Fault::ALL.into_iter().zip(0..) {
        for place in [Place::Gateway, Place::Device, Place::Everywhere] {
            let mut found = Found::default();
            for seed in 0..BROKEN {
                break_one(fault, place, 1_000_000 * (number + 1) + seed, &mut found);
            }
            println!("{fault:?} at {place:?}: {found:?}");
            table.insert(format!("{fault:?} at {place:?}"), (fault, place, found));
        }
    }
    for (name, (fault, place, found)) in table {
        // A device's rules have no classes to lose.
        if (fault, place) == (Fault::ClassDropped, Place::Device) {
            assert_eq!(found.put, 0);
            continue;
        }
        assert!(found.put >= 10, "{name} was put in {} times only", found.put);
        assert!(found.by_packets >= 1, "packets found {name} {} times only", found.by_packets);
        // Of a fault that all agents share, rules alone show only what crosses a border.
        if place != Place::Everywhere || fault == Fault::PrefixLost {
            assert!(found.by_prover >= 1, "the prover found {name} {} times only", found.by_prover);
        }
    }
}

fn break_one(fault: Fault, place: Place, seed: u64, found: &mut Found) {
    let mut dice = Dice::of_seed(seed);
    let mut world = World::random(&mut dice);
    assert!(world.prove().holds(), "seed {seed}: refuted before anything was broken");
    if !fault.put(place, &mut world.sides[0], &mut dice) {
        return;
    }
    found.put += 1;
    let what = format!("seed {seed}, {fault:?} at {place:?}");
    let proof = world.prove();
    let segment = &world.sides[0];
    let mut ends = Ends::of(segment);
    // What the prover shows is what the filter does.
    for refutation in &proof.refutations {
        match &refutation.flaw {
            Flaw::EndsDisagree { device, packet, .. } => {
                let is_it = |config: &partywall_proto::overlay::OverlayConfig| {
                    config.agent == partywall_proto::ids::AgentId::Device(device.clone())
                };
                let person = segment.devices.iter().position(is_it).unwrap();
                let verdicts = ends.judge(person, packet);
                assert_ne!(verdicts.device, verdicts.gateway, "{what}: {refutation}");
            }
            Flaw::CrossesSegments { packet, whom, .. } => {
                assert!(world.is_foreign(0, packet.far.address()), "{what}: {refutation}");
                check_example(segment, &mut ends, whom, packet, &what);
            }
            Flaw::BetweenDevices { packet, whom, .. } => {
                let mut pools = segment.spec.pools.iter();
                assert!(pools.any(|pool| pool.holds(packet.far.address())), "{what}: {refutation}");
                check_example(segment, &mut ends, whom, packet, &what);
            }
            Flaw::ForeignAddress { .. } => panic!("{what}: {refutation}"),
        }
    }
    // What the filter does that must not be, the prover shows.
    let says = |test: fn(&Flaw) -> bool| proof.refutations.iter().any(|it| test(&it.flaw));
    let apart = says(|flaw| matches!(flaw, Flaw::EndsDisagree { .. }));
    let crosses = says(|flaw| matches!(flaw, Flaw::CrossesSegments { .. }));
    let mut caught = false;
    for _ in 0..PACKETS_BROKEN {
        let person = dice.below(segment.people.len());
        let opening = world.opening(0, &mut dice);
        let meant = segment.written.allows(&segment.people[person], &opening);
        let verdicts = ends.judge(person, &opening);
        caught |= verdicts.device != meant || verdicts.gateway != meant;
        assert!(apart || verdicts.device == verdicts.gateway, "{what}: {opening} was not foreseen");
        let passes = verdicts.device || verdicts.gateway;
        let foreign = world.is_foreign(0, opening.far.address());
        assert!(crosses || !(passes && foreign), "{what}: {opening} crosses, unforeseen");
    }
    found.by_prover += usize::from(!proof.holds());
    found.by_packets += usize::from(caught);
}

/// Where a refutation names somebody, that device or its gateway lets the packet pass.
fn check_example(
    segment: &world::Segment,
    ends: &mut Ends<'_>,
    whom: &partywall_controller::domain::prover::Whom,
    packet: &Opening,
    what: &str,
) {
    let Some(device) = &whom.example else { return };
    let agent = partywall_proto::ids::AgentId::Device(device.clone());
    let person = segment.devices.iter().position(|config| config.agent == agent).unwrap();
    let verdicts = ends.judge(person, packet);
    assert!(verdicts.device || verdicts.gateway, "{what}: {packet} does not pass {device}");
}
