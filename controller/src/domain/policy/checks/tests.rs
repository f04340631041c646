//! Every slip in a policy, and where it is found.

use serde_json::{Value, json};

use crate::domain::testing::catalogue;

/// A policy of the NHS that holds, in a building that it shares with the council.
fn manifest() -> Value {
    json!({
        "organisations": [{"name": "council", "title": "C"}, {"name": "nhs", "title": "N"}],
        "buildings": [{"name": "hq", "title": "HQ", "underlay": ["192.0.2.0/24"]}],
        "segments": [
            {"name": "council", "organisation": "council", "title": "C", "tunnel": "split",
             "pools": ["100.64.0.0/24"], "prefixes": ["10.0.0.0/8"]},
            {"name": "nhs", "organisation": "nhs", "title": "N", "tunnel": "full",
             "pools": ["100.64.1.0/24"], "prefixes": ["10.0.0.0/8"]},
            {"name": "labs", "organisation": "nhs", "title": "L", "tunnel": "full",
             "pools": ["100.64.2.0/24"], "prefixes": ["172.16.0.0/16"]},
        ],
        "groups": [{"organisation": "nhs", "name": "ward", "title": "W"}],
        "users": [{"name": "nina@nhs", "title": "Nina", "groups": ["ward"]},
                  {"name": "alice@council", "title": "Alice"}],
        "policies": [{"version": 1, "organisation": "nhs",
            "groups": {"night": {"users": ["nina@nhs"], "groups": ["ward"]},
                       "always": {"groups": ["night"]}},
            "services": {"web": {"prefixes": ["10.2.0.0/16"], "protocol": "tcp", "ports": [443]},
                         "lab": {"prefixes": ["172.16.1.0/24"]}},
            "segments": {
                "nhs": {"defaults": {"when": {"devices": ["managed", "shared-desk"]}}, "rules": [
                    {"name": "web", "who": {"groups": ["ward", "night"], "users": ["nina@nhs"]},
                     "when": {"buildings": ["hq"],
                              "hours": [{"days": ["mon"], "from": "08:00", "until": "18:00"}]},
                     "what": [{"service": "web"}, {"net": {"prefixes": ["10.9.0.1/32"]}}]},
                    {"name": "pool", "who": "everyone", "action": "deny",
                     "what": [{"net": {"prefixes": ["100.64.1.0/24"]}}]}]},
                "labs": {"rules": [{"name": "lab", "who": "everyone", "what": [{"service": "lab"}]}]},
            },
            "tests": [{"name": "web", "to": {"service": "web"}, "expect": "allow",
                       "given": {"user": "nina@nhs", "segment": "nhs", "building": "hq",
                                 "device": "managed", "at": "2026-03-02T09:00"}}]}],
    })
}

/// What is found in the policy once `pointer` in it is `value`.
fn with(pointer: &str, value: Value) -> Vec<String> {
    let mut manifest = manifest();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = manifest.pointer_mut(&format!("/policies/0{parent}")).unwrap();
    match field.parse::<usize>() {
        Ok(index) => parent[index] = value,
        Err(_) => parent[field] = value,
    }
    let found = catalogue(manifest).check();
    found.into_iter().map(|it| format!("{}: {}", it.at, it.detail)).collect()
}

#[test]
fn a_policy_over_all_segments_of_its_organisation_holds() {
    let all = catalogue(manifest());
    assert_eq!(all.check(), []);
    let policy = &all.policies.values().next().unwrap().spec;
    assert_eq!(all.failing_tests(policy), []);
}

#[test]
fn every_slip_in_a_policy_is_found_where_it_is() {
    let rule = "/segments/nhs/rules/0";
    let hours = |days: Value, from: &str, until: &str| json!([{"days": days, "from": from, "until": until}]);
    for (pointer, value, at, says) in [
        ("/organisation", json!("police"), "organisation", "no organisation police"),
        ("/time_zone", json!("Europe/Rotherham"), "time_zone", "Europe/London"),
        ("/groups/ward", json!({"users": ["nina@nhs"]}), "groups/ward", "group of this name"),
        ("/groups/night", json!({}), "groups/night", "nobody is named"),
        ("/groups/night/groups", json!(["always"]), "groups/always", "holds itself"),
        ("/groups/night/groups", json!(["night"]), "groups/night", "night holds itself"),
        ("/groups/night/users/0", json!("bob@nhs"), "groups/night/users/0", "no user bob@nhs"),
        ("/groups/night/users/0", json!("alice@council"), "groups/night/users/0", "not of nhs"),
        ("/groups/night/groups/0", json!("x"), "groups/night/groups/0", "no group nhs/x"),
        ("/services/web/prefixes", json!([]), "services/web/prefixes", "no prefix"),
        ("/services/web/prefixes", json!(["0.0.0.0/0"]), "services/web/prefixes/0", "outside"),
        ("/services/web/protocol", json!("icmp"), "services/web/ports", "ports need"),
        ("/services/web/protocol", json!(null), "services/web/ports", "ports need"),
        ("/segments/x", json!({}), "segments/x", "no segment x"),
        ("/segments/council", json!({}), "segments/council", "belongs to council"),
        (
            "/segments/nhs/defaults/when",
            json!({"devices": []}),
            "segments/nhs/defaults/when/devices",
            "empty list",
        ),
        ("/segments/nhs/rules/1/name", json!("web"), "segments/nhs/rules/web/name", "another rule"),
        (&format!("{rule}/who"), json!({}), "segments/nhs/rules/web/who", "nobody is named"),
        (
            &format!("{rule}/who/groups/1"),
            json!("x"),
            "segments/nhs/rules/web/who/groups/1",
            "no group",
        ),
        (
            &format!("{rule}/who/users/0"),
            json!("x@nhs"),
            "segments/nhs/rules/web/who/users/0",
            "no user",
        ),
        (&format!("{rule}/what"), json!([]), "segments/nhs/rules/web/what", "nothing is named"),
        (
            &format!("{rule}/what/0"),
            json!({"service": "x"}),
            "segments/nhs/rules/web/what/0",
            "no service x",
        ),
        (
            &format!("{rule}/what/0"),
            json!({"service": "lab"}),
            "segments/nhs/rules/web/what/0",
            "outside",
        ),
        (
            &format!("{rule}/what/1/net/prefixes"),
            json!(["11.0.0.0/8"]),
            "segments/nhs/rules/web/what/1/net/prefixes/0",
            "11.0.0.0/8 is outside",
        ),
        (
            &format!("{rule}/when/buildings"),
            json!(["x"]),
            "segments/nhs/rules/web/when/buildings/0",
            "no building",
        ),
        (
            &format!("{rule}/when/buildings"),
            json!([]),
            "segments/nhs/rules/web/when/buildings",
            "empty list",
        ),
        (
            &format!("{rule}/when/hours"),
            json!([]),
            "segments/nhs/rules/web/when/hours",
            "empty list",
        ),
        (
            &format!("{rule}/when/hours"),
            hours(json!([]), "08:00", "18:00"),
            "segments/nhs/rules/web/when/hours/0/days",
            "no day",
        ),
        (
            &format!("{rule}/when/hours"),
            hours(json!(["mon"]), "18:00", "08:00"),
            "segments/nhs/rules/web/when/hours/0/until",
            "two spans",
        ),
        (
            &format!("{rule}/when/hours"),
            hours(json!(["mon"]), "08:00", "08:00"),
            "segments/nhs/rules/web/when/hours/0/until",
            "not before",
        ),
        ("/tests/0/given/user", json!("x@nhs"), "tests/web/given/user", "no user"),
        (
            "/tests/0/given/segment",
            json!("council"),
            "tests/web/given/segment",
            "nothing of segment",
        ),
        ("/tests/0/given/segment", json!(null), "tests/web/given/segment", "which is meant"),
        ("/tests/0/given/building", json!("x"), "tests/web/given/building", "no building"),
        ("/tests/0/to", json!({"service": "x"}), "tests/web/to", "no service"),
    ] {
        let found = with(pointer, value.clone());
        let organisation = if pointer == "/organisation" { "police" } else { "nhs" };
        let at = format!("policies/{organisation}/{at}: ");
        let there = |it: &String| it.starts_with(&at) && it.contains(says);
        assert!(found.iter().any(there), "{pointer} {value}: {found:#?}");
    }
}

#[test]
fn a_slip_that_is_repeated_for_ever_is_told_within_bounds() {
    let many = json!(vec!["ghosts"; 5_000]);
    let found = with("/groups/night/groups", many);
    assert_eq!(found.len(), super::FINDINGS_MAX + 1);
    assert!(found.last().unwrap().contains("there is more"));
}

#[test]
fn services_that_multiply_are_refused_before_they_are_compiled() {
    let prefixes: Vec<_> =
        (0..1_000).map(|it| format!("10.2.{}.{}/32", it / 250, it % 250)).collect();
    let rules: Vec<_> = (0..251)
        .map(
            |it| json!({"name": format!("r{it}"), "who": "everyone", "what": [{"service": "web"}]}),
        )
        .collect();
    let mut all = manifest();
    all["policies"][0]["services"]["web"]["prefixes"] = json!(prefixes);
    all["policies"][0]["segments"]["nhs"]["rules"] = json!(rules);
    let found = catalogue(all).check();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].detail.contains("make 251000 rules"), "{found:?}");
}

#[test]
fn a_test_that_fails_names_the_rule_and_what_was_expected() {
    let mut all = manifest();
    all["policies"][0]["tests"][0]["expect"] = json!("refuse");
    let all = catalogue(all);
    let failing = all.failing_tests(&all.policies.values().next().unwrap().spec);
    assert_eq!(failing.len(), 1);
    assert_eq!(failing[0].at, "policies/nhs/tests/web");
    assert!(failing[0].detail.contains("expected refuse, but rule web allows it"));
}
