//! What any bytes go through on their way to becoming a policy, and any policy on its way to a verdict.

use std::net::IpAddr;

use partywall_controller::domain::catalogue::Catalogue;
use partywall_controller::domain::policy::{Compiled, Facts, Opening, decide, text};
use partywall_proto::admin::{
    DeviceClass, Endpoint, PolicyRule, PolicySpec, ServiceSpec, SignInStrength, Target, Versioned,
    Who,
};
use partywall_proto::nets::Protocol;
use partywall_proto::rules::{Action, Opener};
use serde_json::{Value, json};

/// # Panics
/// If a policy that was read is not written and read again as the same, or lets a stranger in.
pub(crate) fn exercise_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text::read(text) {
        Err(finding) => assert!(!finding.detail.is_empty()),
        Ok(policy) => {
            let json = serde_json::to_string(&policy).expect("a policy has a JSON form");
            assert_eq!(text::read(&json).expect("JSON is YAML"), policy);
            let mut findings = check(&policy);
            text::locate(text, &policy, &mut findings);
            judge(&policy, data);
        }
    }
}

/// # Panics
/// If the compiler allows what the policy does not, or panics.
pub(crate) fn exercise_compiler(data: &[u8]) {
    let mut choices = data.iter().copied();
    let policy = policy(&mut || choices.next().unwrap_or(0));
    let policy: PolicySpec = serde_json::from_value(policy).expect("only what is known is chosen");
    check(&policy);
    judge(&policy, data);
}

/// Checks `policy` where nothing else is set up, and tries its tests.
fn check(policy: &PolicySpec) -> Vec<partywall_proto::problem::Finding> {
    let mut all = Catalogue::default();
    let stored = Versioned { revision: 1, spec: policy.clone() };
    all.policies.insert(policy.organisation.clone(), stored);
    all.failing_tests(policy);
    all.check()
}

/// Asks for verdicts, and that each one that allows comes of a rule that says so.
fn judge(policy: &PolicySpec, data: &[u8]) {
    let stranger = "stranger@elsewhere".parse().expect("it is a user");
    let facts = Facts {
        user: &stranger,
        groups: &[],
        device: DeviceClass::Agentless,
        building: None,
        sign_in: SignInStrength::None,
    };
    let now = "2026-03-02T09:00:00Z".parse().expect("it is an instant");
    let byte = |at: usize| data.get(at).copied().unwrap_or(0);
    for (segment, written) in &policy.segments {
        let compiled = Compiled::of(policy, segment);
        assert!(compiled.next_change(now).is_none_or(|next| next > now));
        let classes = compiled.classes_of(&facts, now);
        for at in 0..8 {
            let address = IpAddr::from([10, byte(at) % 4, byte(at + 1) % 4, byte(at + 2)]);
            let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp][at % 3];
            let far = Endpoint::new(address, protocol, [80, 443, 8080][at % 3]);
            let opener = if at % 2 == 0 { Opener::Device } else { Opener::Network };
            let opening = Opening { opener, far };
            let gateway = decide(compiled.rules(), &classes, &opening);
            let own = compiled.rules_for(&classes);
            assert_eq!(gateway, decide(&own, &[], &opening), "the two ends disagree");
            if gateway.allows() {
                let says_so = |rule: &PolicyRule| {
                    Some(&rule.name) == gateway.rule && allows(policy, rule, &opening)
                };
                assert!(written.rules.iter().any(says_so), "{opening:?} was let in by {gateway:?}");
            }
        }
    }
}

/// Whether `rule` by itself lets a stranger do this.
fn allows(policy: &PolicySpec, rule: &PolicyRule, opening: &Opening) -> bool {
    let far = &opening.far;
    let covers = |service: &ServiceSpec| {
        service.prefixes.iter().any(|prefix| prefix.holds(far.address()))
            && service.protocol.is_none_or(|protocol| protocol == far.protocol())
            && (service.ports.is_empty() || service.ports.iter().any(|it| it.holds(far.port())))
    };
    rule.action == Action::Allow
        && rule.opened_by == opening.opener
        && rule.who == Who::Everyone
        && rule.when.buildings.is_none()
        && rule.when.sign_in.is_none_or(|least| least == SignInStrength::None)
        && rule.what.iter().any(|target| match target {
            Target::Service(name) => policy.services.get(name).is_some_and(covers),
            Target::Net(net) => covers(net),
        })
}

/// A policy of as many rules as there are choices for, sound or not.
fn policy(choose: &mut dyn FnMut() -> u8) -> Value {
    let time_zone = pick(choose, &[json!("Europe/London"), json!("UTC"), json!("Nowhere/Else")]);
    let groups = json!({
        "a": { "groups": pick(choose, &[json!([]), json!(["b"]), json!(["a"]), json!(["staff"])]) },
        "b": { "groups": ["a"], "users": pick(choose, &[json!([]), json!(["bob@council"])]) },
    });
    let services = json!({ "web": net(choose), "other": net(choose) });
    let defaults = when(choose);
    let count = choose() % 8;
    let rules: Vec<Value> = (0..count).map(|number| rule(choose, number)).collect();
    let tests = json!([{
        "name": "t", "given": { "user": "bob@council" }, "to": { "service": "web" },
        "expect": pick(choose, &[json!("allow"), json!("refuse")]),
    }]);
    json!({
        "version": 1, "organisation": "council", "time_zone": time_zone, "groups": groups,
        "services": services, "tests": tests,
        "segments": { "council": { "defaults": { "when": defaults }, "rules": rules } },
    })
}

fn rule(choose: &mut dyn FnMut() -> u8, number: u8) -> Value {
    let who = pick(
        choose,
        &[
            json!("everyone"),
            json!({}),
            json!({"groups": ["a"]}),
            json!({"users": ["bob@council"]}),
        ],
    );
    let what = pick(
        choose,
        &[json!([]), json!([{"service": "web"}]), json!([{"service": "nothing"}]), json!("net")],
    );
    let what =
        if what == "net" { json!([{"net": net(choose)}, {"service": "other"}]) } else { what };
    json!({
        "name": format!("r{}", number % 5), "who": who, "what": what, "when": when(choose),
        "action": pick(choose, &[json!("allow"), json!("deny")]),
        "opened_by": pick(choose, &[json!("device"), json!("network")]),
    })
}

fn net(choose: &mut dyn FnMut() -> u8) -> Value {
    let prefix = |choose: &mut dyn FnMut() -> u8| {
        let (second, third) = (choose() % 4, choose() % 4);
        match choose() % 4 {
            0 => "0.0.0.0/0".to_owned(),
            1 => format!("10.{second}.0.0/16"),
            2 => format!("10.{second}.{third}.0/24"),
            _ => "fd00::/8".to_owned(),
        }
    };
    let prefixes: Vec<_> = (0..choose() % 3).map(|_| prefix(choose)).collect();
    let mut net = json!({ "prefixes": prefixes });
    if let Some(protocol) = ["tcp", "udp", "icmp"].get(usize::from(choose() % 4)) {
        net["protocol"] = json!(protocol);
    }
    net["ports"] = pick(choose, &[json!([]), json!([80]), json!(["81-9000", 443])]);
    net
}

fn when(choose: &mut dyn FnMut() -> u8) -> Value {
    let hours = |from: &str, until: &str| json!([{"days": ["mon"], "from": from, "until": until}]);
    let mut when = json!({});
    let options = [
        ("buildings", json!([])),
        ("buildings", json!(["hq"])),
        ("devices", json!([])),
        ("devices", json!(["agentless", "managed"])),
        ("sign_in", json!("none")),
        ("sign_in", json!("code")),
        ("hours", hours("08:00", "18:00")),
        ("hours", hours("18:00", "08:00")),
    ];
    if let Some((field, value)) = options.get(usize::from(choose() % 24)) {
        when[field] = value.clone();
    }
    when
}

fn pick(choose: &mut dyn FnMut() -> u8, options: &[Value]) -> Value {
    options[usize::from(choose()) % options.len()].clone()
}
