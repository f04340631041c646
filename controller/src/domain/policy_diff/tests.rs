//! Tests of the difference in effect: sentences that an admin reads, and every packet of a small universe.

use partywall_proto::admin::{DeviceClass, Endpoint, SignInStrength};
use partywall_proto::ids::BuildingId;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::policy::{Facts, Opening, decide};

const NOW: &str = "2026-03-04T12:00:00Z";

fn policy() -> Value {
    json!({
        "version": 1, "organisation": "council",
        "groups": { "night-team": { "users": ["nora@council"] } },
        "services": {
            "intranet": { "prefixes": ["10.1.0.10", "fd10::10"], "protocol": "tcp", "ports": [80, 443] },
            "ledger": { "prefixes": ["10.2.0.0/24"], "protocol": "tcp", "ports": [5432] },
        },
        "segments": { "council": { "rules": [
            { "name": "not-the-plant-room", "who": "everyone", "action": "deny",
              "what": [{ "net": { "prefixes": ["10.1.9.0/24"] } }] },
            { "name": "intranet", "who": "everyone", "what": [{ "service": "intranet" }] },
            { "name": "ledger", "who": { "groups": ["finance"] }, "when": { "devices": ["managed"] },
              "what": [{ "service": "ledger" }] },
            { "name": "night", "who": { "groups": ["night-team"] },
              "what": [{ "net": { "prefixes": ["10.1.7.0/24"], "protocol": "tcp", "ports": [22] } }] },
        ]}},
    })
}

fn people() -> Vec<Person> {
    let person = |user: &str, groups: &[&str]| {
        let groups = groups.iter().map(|name| name.parse().unwrap()).collect();
        (user.parse().unwrap(), groups)
    };
    vec![
        person("alice@council", &["staff"]),
        person("bob@council", &["finance", "staff"]),
        person("carol@council", &["finance", "staff"]),
        person("nora@council", &["wardens"]),
    ]
}

fn segment() -> SegmentId {
    "council".parse().unwrap()
}

/// What changes where `policy()` becomes what `change` makes of it.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut after = policy();
    change(&mut after);
    let [before, after]: [PolicySpec; 2] =
        [policy(), after].map(|it| serde_json::from_value(it).unwrap());
    let [old, new] = [&before, &after].map(|it| Compiled::of(it, &segment()));
    let pairs = [Pair { segment: &segment(), before: &old, after: &new }];
    let diff = diff(&pairs, [Some(&before), Some(&after)], &people(), NOW.parse().unwrap());
    assert!(diff.complete && diff.unlisted == 0);
    let line = |it: &PolicyEffect| {
        let who = match (&it.who.group, it.who.everyone) {
            (_, true) => "everyone".to_owned(),
            (Some(group), false) => format!("group {group}"),
            (None, false) => {
                format!("{:?}", it.who.users.iter().map(ToString::to_string).collect::<Vec<_>>())
            }
        };
        let when = serde_json::to_string(&it.when).unwrap();
        format!("{who} {:?} {} by {} when {when}", it.effect, it.what.join(" + "), it.rule)
    };
    diff.changes.iter().map(line).collect()
}

fn rules(policy: &mut Value) -> &mut Vec<Value> {
    policy["segments"]["council"]["rules"].as_array_mut().unwrap()
}

#[test]
fn other_words_for_the_same_change_nothing() {
    let none: [String; 0] = [];
    assert_eq!(changed(|_| {}), none);
    assert_eq!(changed(|it| rules(it)[1]["name"] = json!("web")), none);
    // What these two say has nothing in common.
    assert_eq!(changed(|it| rules(it).swap(2, 3)), none);
    let split = changed(|it| {
        it["services"]["intranet"]["ports"] = json!([443]);
        let mut half = rules(it)[1].clone();
        half["name"] = json!("intranet-80");
        half["what"] = json!([{ "net": { "prefixes": ["10.1.0.10", "fd10::10"], "protocol": "tcp", "ports": [80] } }]);
        rules(it).insert(3, half);
    });
    assert_eq!(split, none);
    let halves = changed(|it| {
        it["services"]["ledger"]["prefixes"] = json!(["10.2.0.0/25", "10.2.0.128/25"])
    });
    assert_eq!(halves, none);
    let covered = changed(|it| {
        rules(it).push(json!({ "name": "again", "who": { "groups": ["staff"] }, "what": [{ "service": "intranet" }] }));
    });
    assert_eq!(covered, none);
    let unused = changed(|it| it["groups"]["nobody"] = json!({ "users": ["alice@council"] }));
    assert_eq!(unused, none);
}

#[test]
fn what_is_gained_and_lost_is_told_in_few_words() {
    assert_eq!(
        changed(|it| it["services"]["intranet"]["ports"] = json!([80, 443, 8443])),
        ["everyone Gains 10.1.0.10/32 tcp 8443 + fd10::10/128 tcp 8443 by intranet when {}"]
    );
    assert_eq!(
        changed(|it| drop(rules(it).remove(1))),
        ["everyone Loses intranet by intranet when {}"]
    );
    assert_eq!(
        changed(|it| it["groups"]["night-team"]["users"] = json!(["nora@council", "alice@council"])),
        [r#"["alice@council"] Gains 10.1.7.0/24 tcp 22 by night when {}"#]
    );
    assert_eq!(
        changed(|it| rules(it).swap(0, 1)),
        changed(|it| it["time_zone"] = json!("UTC")),
        "neither makes a difference"
    );
    // The plant room is opened by an order of rules.
    assert_eq!(
        changed(|it| {
            let wide = json!({ "name": "wide", "who": { "groups": ["finance"] },
                               "what": [{ "net": { "prefixes": ["10.1.8.0/22"] } }] });
            rules(it).insert(0, wide);
        }),
        ["group finance Gains 10.1.8.0/22 by wide when {}"]
    );
}

#[test]
fn conditions_are_told_where_they_matter() {
    assert_eq!(
        changed(|it| rules(it)[2]["when"]["devices"] = json!(["managed", "shared-desk"])),
        [r#"group finance Gains ledger by ledger when {"devices":["shared-desk"]}"#]
    );
    assert_eq!(
        changed(|it| rules(it)[2]["when"]["buildings"] = json!(["hq", "depot"])),
        [r#"group finance Loses ledger by ledger when {"devices":["managed"],"elsewhere":true}"#]
    );
    assert_eq!(
        changed(|it| rules(it)[1]["when"]["sign_in"] = json!("code")),
        [r#"everyone Loses intranet by intranet when {"sign_in":["none","password"]}"#]
    );
    let office = json!([{ "days": ["mon", "sun"], "from": "08:00", "until": "24:00" }]);
    assert_eq!(
        changed(|it| rules(it)[3]["when"]["hours"] = office),
        [concat!(
            r#"group wardens Loses 10.1.7.0/24 tcp 22 by night when "#,
            r#"{"hours":["Mon 00:00 to Mon 08:00","Tue 00:00 to Sun 08:00"]}"#
        )]
    );
}

#[test]
fn an_answer_is_bounded_and_says_so() {
    let many: Vec<_> = (0..LINES_MAX + 5)
        .map(|at| {
            json!({ "name": format!("r{at}"), "who": "everyone",
            "what": [{ "net": { "prefixes": [format!("10.3.{}.{}", at / 256, at % 256)] } }] })
        })
        .collect();
    let mut after = policy();
    rules(&mut after).extend(many);
    let [before, after]: [PolicySpec; 2] =
        [policy(), after].map(|it| serde_json::from_value(it).unwrap());
    let [old, new] = [&before, &after].map(|it| Compiled::of(it, &segment()));
    let pairs = [Pair { segment: &segment(), before: &old, after: &new }];
    let found = diff(&pairs, [None, None], &people(), NOW.parse().unwrap());
    assert_eq!((found.changes.len(), found.unlisted, found.complete), (LINES_MAX, 5, true));
    let mut budget = Budget { kinds: 1, rules: 10, held: 10 };
    let mut comparison = Comparison::of(pairs[0], &mut budget);
    let values = Values::of(&old, &new, NOW.parse().unwrap());
    assert!(!comparison.look(&values, &people(), &mut Changes::new()));
}

fn random_rule() -> impl Strategy<Value = Value> {
    let who = prop::sample::select(vec![
        json!("everyone"),
        json!({ "groups": ["staff"] }),
        json!({ "groups": ["finance"], "users": ["nora@council"] }),
        json!({ "groups": ["night-team"] }),
    ]);
    let when = prop::sample::select(vec![
        json!({}),
        json!({ "devices": ["managed", "agentless"] }),
        json!({ "buildings": ["hq"] }),
        json!({ "sign_in": "code", "buildings": ["depot", "hq"] }),
        json!({ "hours": [{ "days": ["mon", "wed"], "from": "08:00", "until": "18:00" }] }),
    ]);
    let ports = prop::sample::select(vec![json!([]), json!([1]), json!(["1-2"]), json!([2, 3])]);
    let action = prop::sample::select(vec!["allow", "allow", "deny"]);
    let opener = prop::sample::select(vec!["device", "device", "network"]);
    let tcp = any::<bool>();
    (who, when, ports, action, opener, tcp, 0_u8..8, 0_u8..=3).prop_map(
        |(who, when, ports, action, opener, tcp, low, bits)| {
            let (low, length) = (low & (7 << (3 - bits)), 29 + bits);
            let mut net = json!({ "prefixes": [format!("10.0.0.{low}/{length}")] });
            if tcp {
                net["protocol"] = json!("tcp");
                net["ports"] = ports;
            }
            json!({ "name": "r", "who": who, "when": when, "action": action, "opened_by": opener,
                    "what": [{ "net": net }] })
        },
    )
}

fn packets() -> Vec<Opening> {
    let mut packets = Vec::new();
    for opener in [Opener::Device, Opener::Network] {
        for low in 0..8 {
            for (protocol, port) in [
                (Protocol::Tcp, 1),
                (Protocol::Tcp, 2),
                (Protocol::Tcp, 4),
                (Protocol::Udp, 2),
                (Protocol::Icmp, 0),
            ] {
                let far = Endpoint::new([10, 0, 0, low].into(), protocol, port);
                packets.push(Opening { opener, far });
            }
        }
    }
    packets
}

fn holds(piece: &Piece, packet: &Opening) -> bool {
    let far = &packet.far;
    let spoken = piece.what.iter().filter(|(protocol, _)| *protocol == far.protocol());
    let ports = |ports: &[PortRange]| {
        far.protocol() == Protocol::Icmp || ports.iter().any(|it| it.holds(far.port()))
    };
    piece.opener == packet.opener
        && piece.prefix.holds(far.address())
        && spoken.into_iter().any(|(_, it)| ports(it))
}

fn applies(values: &Values<'_>, when: &EffectConditions, facts: &Facts<'_>, monday: bool) -> bool {
    let here = facts.building.is_some_and(|it| when.buildings.contains(it));
    let elsewhere =
        when.elsewhere && facts.building.is_none_or(|it| !values.buildings.contains(&Some(it)));
    // Monday at nine lies in one of the spans that the hours make, Tuesday at nine in another.
    let begins = if monday { "Mon 08:00 " } else { "Mon 18:00 " };
    let hours = when.hours.iter().any(|it| it.starts_with(begins));
    (when.devices.is_empty() || when.devices.contains(&facts.device))
        && ((when.buildings.is_empty() && !when.elsewhere) || here || elsewhere)
        && (when.sign_in.is_empty() || when.sign_in.contains(&facts.sign_in))
        && (when.hours.is_empty() || hours)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_differs_is_what_trying_every_packet_finds(
        start in proptest::collection::vec(random_rule(), 0..5),
        removed in 0_usize..4,
        added in random_rule(),
        place in 0_usize..4,
        twice in any::<bool>(),
    ) {
        let mut next = start.clone();
        if removed < next.len() {
            let moved = next.remove(removed);
            if twice {
                next.push(moved);
            }
        }
        next.insert(place.min(next.len()), added);
        let [old, new] = [start, next].map(|list| {
            let mut it = policy();
            let numbered = list.into_iter().enumerate().map(|(at, mut rule)| {
                rule["name"] = json!(format!("r{at}"));
                rule
            });
            it["segments"]["council"]["rules"] = Value::Array(numbered.collect());
            Compiled::of(&serde_json::from_value(it).unwrap(), &segment())
        });
        let segment = segment();
        let pair = Pair { segment: &segment, before: &old, after: &new };
        let mut budget = Budget { kinds: KINDS_MAX, rules: RULES_MAX, held: HELD_MAX };
        let mut comparison = Comparison::of(pair, &mut budget);
        let values = Values::of(&old, &new, NOW.parse().unwrap());
        let (people, mut found) = (people(), Changes::new());
        prop_assert!(comparison.look(&values, &people, &mut found));
        let places: Vec<BuildingId> = ["hq", "depot", "moon"].map(|it| it.parse().unwrap()).into();
        for (number, (user, groups)) in people.iter().enumerate() {
            for building in places.iter().map(Some).chain([None]) {
                for device in [DeviceClass::Managed, DeviceClass::Personal] {
                    for sign_in in [SignInStrength::Password, SignInStrength::Code] {
                        for monday in [true, false] {
                            let at = if monday { "2026-03-02T09:00:00Z" } else { "2026-03-03T09:00:00Z" };
                            let facts = Facts { user, groups, device, building, sign_in };
                            let classes = [&old, &new].map(|it| it.classes_of(&facts, at.parse().unwrap()));
                            let told: Vec<_> = found
                                .iter()
                                .filter(|((_, when), who)| who.contains(&number) && applies(&values, when, &facts, monday))
                                .map(|((change, _), _)| &comparison.known[*change])
                                .collect();
                            for packet in packets() {
                                let was = decide(old.rules(), &classes[0], &packet).allows();
                                let is = decide(new.rules(), &classes[1], &packet).allows();
                                let said = |effect| {
                                    let of = told.iter().filter(|it| it.0 == effect);
                                    of.filter(|it| holds(&it.1, &packet)).count()
                                };
                                let counts = (said(EffectKind::Loses), said(EffectKind::Gains));
                                let expected = (usize::from(was && !is), usize::from(is && !was));
                                prop_assert_eq!(counts, expected, "{} {:?}", packet, facts);
                            }
                        }
                    }
                }
            }
        }
    }
}
