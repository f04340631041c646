//! What an apply changes, for a person to read before they let it.
//!
//! Each line says in its first character what happens (`+`, `~`, `-`), so nothing is lost without colour.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use partywall_proto::admin::ApplyReport;
use serde_json::Value;

/// The changes of `report` as text, one resource after the other.
pub(super) fn render(report: &ApplyReport) -> String {
    let mut text = String::new();
    for change in &report.changes {
        match &change.before {
            None => {
                line(&mut text, "+", &change.resource, "(new)");
                fields(&mut text, "", &Value::Null, &change.after);
            }
            Some(before) => {
                line(&mut text, "~", &change.resource, "");
                fields(&mut text, "", before, &change.after);
            }
        }
    }
    text
}

/// "1 new, 2 changed", or that nothing is.
pub(super) fn summary(report: &ApplyReport) -> String {
    let new = report.changes.iter().filter(|change| change.before.is_none()).count();
    match report.changes.len() - new {
        0 if new == 0 => "everything is as the files say".to_owned(),
        changed => format!("{new} new, {changed} changed"),
    }
}

fn fields(text: &mut String, path: &str, before: &Value, after: &Value) {
    if before == after {
        return;
    }
    if let Some((before, after)) = both_objects(before, after) {
        let names: BTreeMap<&String, ()> =
            before.keys().chain(after.keys()).map(|name| (name, ())).collect();
        for name in names.into_keys() {
            let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            fields(
                text,
                &inner,
                before.get(name).unwrap_or(&Value::Null),
                after.get(name).unwrap_or(&Value::Null),
            );
        }
        return;
    }
    if let (Value::Array(before), Value::Array(after)) = (before, after) {
        list(text, path, before, after);
        return;
    }
    match (before, after) {
        (Value::Null, set) => line(text, "    +", path, &format!("{set}")),
        (gone, Value::Null) => line(text, "    -", path, &format!("{gone}")),
        (old, new) => line(text, "    ~", path, &format!("{old} -> {new}")),
    }
}

type Object = serde_json::Map<String, Value>;

/// Both as objects; what is not there counts as an empty one beside an object.
fn both_objects<'a>(before: &'a Value, after: &'a Value) -> Option<(&'a Object, &'a Object)> {
    static EMPTY: std::sync::LazyLock<Object> = std::sync::LazyLock::new(Object::new);
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => Some((before, after)),
        (Value::Null, Value::Object(after)) => Some((&EMPTY, after)),
        (Value::Object(before), Value::Null) => Some((before, &EMPTY)),
        (_, _) => None,
    }
}

fn list(text: &mut String, path: &str, before: &[Value], after: &[Value]) {
    let gone: Vec<_> = before.iter().filter(|item| !after.contains(item)).collect();
    let new: Vec<_> = after.iter().filter(|item| !before.contains(item)).collect();
    if gone.is_empty() && new.is_empty() {
        // In a policy the order decides, so a list that is only in another order has changed.
        let order = |items: &[Value]| items.iter().map(short).collect::<Vec<_>>().join(", ");
        line(text, "    ~", path, &format!("order: {} -> {}", order(before), order(after)));
    }
    for item in gone {
        line(text, "    -", path, &item.to_string());
    }
    for item in new {
        line(text, "    +", path, &item.to_string());
    }
}

/// A list's item by its name where it has one.
fn short(item: &Value) -> String {
    match item.get("name").and_then(Value::as_str) {
        Some(name) => name.to_owned(),
        None => item.to_string(),
    }
}

fn line(text: &mut String, mark: &str, what: &str, value: &str) {
    let gap = if value.is_empty() { "" } else { " " };
    writeln!(text, "{mark} {what}{gap}{value}").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use partywall_proto::admin::ResourceChange;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_changed_field_is_shown_and_no_other() {
        let report = ApplyReport {
            changes: vec![
                ResourceChange {
                    resource: "segments/council".to_owned(),
                    before: Some(
                        json!({"title": "C", "session_length_s": 1, "dns": {"servers": ["10.1.0.1"]}, "prefixes": ["10.0.0.0/8"]}),
                    ),
                    after: json!({"title": "C", "session_length_s": 2, "dns": {"servers": ["10.1.0.2"], "search": []}, "prefixes": ["10.0.0.0/8"]}),
                },
                ResourceChange {
                    resource: "users/alice@council".to_owned(),
                    before: None,
                    after: json!({"title": "Alice"}),
                },
            ],
            revision: 7,
        };
        assert_eq!(
            render(&report),
            "~ segments/council\n    + dns.search []\n    - dns.servers \"10.1.0.1\"\n    + dns.servers \"10.1.0.2\"\n    ~ session_length_s 1 -> 2\n+ users/alice@council (new)\n    + title \"Alice\"\n"
        );
        assert_eq!(summary(&report), "1 new, 1 changed");
    }

    #[test]
    fn rules_in_another_order_are_a_change() {
        let rule = |name: &str| json!({"name": name, "who": "everyone"});
        let report = ApplyReport {
            changes: vec![ResourceChange {
                resource: "policies/council".to_owned(),
                before: Some(json!({"rules": [rule("a"), rule("b")]})),
                after: json!({"rules": [rule("b"), rule("a")]}),
            }],
            revision: 7,
        };
        assert!(render(&report).contains("~ rules order: a, b -> b, a"), "{}", render(&report));
    }
}
