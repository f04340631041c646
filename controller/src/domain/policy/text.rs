//! A policy as text: YAML in, a policy and the place of each thing in it out.
//!
//! The text is a stranger's: its size, depth, nodes and aliases are bounded before anything is built of
//! it. JSON is YAML, so JSON is read too.

use std::collections::BTreeMap;

use partywall_proto::admin::{POLICY_MAX_BYTES, PolicySpec};
use partywall_proto::problem::Finding;
use serde_saphyr::granit_parser::{Event, Parser, Span};

use crate::domain::resource::Resource;

/// What a finding about the text as a whole is about.
const WHOLE: &str = "policy";
/// Deepest nesting that is read; a policy needs eight.
const DEPTH_MAX: usize = 32;
/// Longest lists whose items go by their names.
const NAMED: [&str; 2] = ["rules", "tests"];

/// Reads a policy.
///
/// # Errors
/// The first thing in `text` that is not understood, with its line and column.
pub fn read(text: &str) -> Result<PolicySpec, Box<Finding>> {
    if text.len() > POLICY_MAX_BYTES {
        let detail = format!("{} bytes are too long", text.len());
        let detail = format!("{detail}; a policy has {POLICY_MAX_BYTES} bytes at most");
        return Err(Box::new(Finding::new(WHOLE, detail)));
    }
    let options = serde_saphyr::options! {
        // Anchors that multiply: a few hundred bytes must not become gigabytes.
        budget: serde_saphyr::budget! {
            max_events: 2_000_000,
            max_nodes: 1_000_000,
            max_depth: DEPTH_MAX,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_documents: 1,
        },
        // `no` is a word; different readers would take it for different things.
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let mut finding = Finding::new(WHOLE, words(&error));
        if let Some(location) = error.location() {
            finding.line = u32::try_from(location.line()).ok();
            finding.column = u32::try_from(location.column()).ok();
        }
        Box::new(finding)
    })
}

/// Writes `policy` anew, so that [`read`] gives it back.
pub fn write(policy: &PolicySpec) -> String {
    serde_saphyr::to_string(policy).unwrap_or_else(|_| {
        serde_json::to_string_pretty(policy).expect("specs have a JSON form, which is YAML")
    })
}

/// The error without its position, which travels by itself.
fn words(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let place =
        error.location().map(|it| format!(" at line {}, column {}", it.line(), it.column()));
    match place.and_then(|place| text.find(&place).map(|start| (start, place.len()))) {
        Some((start, length)) => format!("{}{}", &text[..start], &text[start + length..]),
        None => text,
    }
}

/// Gives those of `findings` that are about `policy` their places in the `text` that it was read from:
/// the place of what they name or, where that is not written, of what it would stand in.
pub fn locate(text: &str, policy: &PolicySpec, findings: &mut [Finding]) {
    let own = format!("{}/", policy.path());
    let mut wanted: BTreeMap<String, Option<(u32, u32)>> = BTreeMap::new();
    for finding in &*findings {
        let mut at = finding.at.strip_prefix(&own);
        while let Some(path) = at {
            wanted.insert(path.to_owned(), None);
            at = path.rsplit_once('/').map(|(outer, _)| outer);
        }
    }
    Walk { wanted: &mut wanted, names: names(text), path: String::new(), open: Vec::new() }
        .run(text);
    for finding in findings {
        let mut at = finding.at.strip_prefix(&own);
        while let Some(path) = at {
            if let Some(Some((line, column))) = wanted.get(path) {
                (finding.line, finding.column) = (Some(*line), Some(*column));
                break;
            }
            at = path.rsplit_once('/').map(|(outer, _)| outer);
        }
    }
}

/// A mapping or a list that is being read.
struct Open {
    /// Length of the path of this one.
    path: usize,
    /// In a list the number of the next item; none in a mapping.
    item: Option<usize>,
    /// In a mapping, whether the next scalar is a key.
    key: bool,
}

/// One pass over the text's nodes that notes the places of the paths that are wanted.
struct Walk<'a> {
    wanted: &'a mut BTreeMap<String, Option<(u32, u32)>>,
    names: BTreeMap<usize, String>,
    path: String,
    open: Vec<Open>,
}

impl Walk<'_> {
    fn run(&mut self, text: &str) {
        for (number, event) in Parser::new_from_str(text).enumerate() {
            // What cannot be parsed was refused when it was read.
            let Ok((event, span)) = event else { return };
            match event {
                Event::Scalar(word, ..) => match self.open.last() {
                    Some(open) if open.key => self.key(&word, span),
                    Some(_) | None => self.node(number, span, |_| {}),
                },
                Event::Alias(_) => self.node(number, span, |_| {}),
                Event::SequenceStart(..) => self.node(number, span, |walk| {
                    let path = walk.path.len();
                    walk.open.push(Open { path, item: Some(0), key: false });
                }),
                Event::MappingStart(..) => self.node(number, span, |walk| {
                    let path = walk.path.len();
                    walk.open.push(Open { path, item: None, key: true });
                }),
                Event::SequenceEnd | Event::MappingEnd => {
                    self.open.pop();
                    self.end_of_value();
                }
                Event::StreamStart
                | Event::StreamEnd
                | Event::DocumentStart(..)
                | Event::DocumentEnd
                | Event::Comment(..)
                | _ => {}
            }
        }
    }

    /// A key of the innermost mapping: its value's place is where the key stands.
    fn key(&mut self, word: &str, span: Span) {
        self.step(word);
        self.note(span);
        if let Some(open) = self.open.last_mut() {
            open.key = false;
        }
    }

    /// A value begins. One that holds others stays open.
    fn node(&mut self, number: usize, span: Span, enter: impl FnOnce(&mut Self)) {
        if let Some(Open { item: Some(item), .. }) = self.open.last_mut() {
            let index = item.to_string();
            *item += 1;
            let name = self.names.remove(&number).unwrap_or(index);
            self.step(&name);
            self.note(span);
        }
        let depth = self.open.len();
        enter(self);
        if self.open.len() == depth {
            self.end_of_value();
        }
    }

    /// What comes next in a mapping is a key.
    fn end_of_value(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.key = open.item.is_none();
        }
    }

    /// Goes to `word` within the innermost mapping or list.
    fn step(&mut self, word: &str) {
        self.path.truncate(self.open.last().map_or(0, |open| open.path));
        if !self.path.is_empty() {
            self.path.push('/');
        }
        self.path.push_str(word);
    }

    fn note(&mut self, span: Span) {
        if let Some(place) = self.wanted.get_mut(&self.path) {
            let line = u32::try_from(span.start.line()).unwrap_or(u32::MAX);
            let column = u32::try_from(span.start.col()).unwrap_or(u32::MAX);
            // Of two of one name the later is the one too many.
            *place = Some((line, column.saturating_add(1)));
        }
    }
}

/// The names of rules and tests, by the number of the event that begins each. A name need not come first.
fn names(text: &str) -> BTreeMap<usize, String> {
    let mut found = BTreeMap::new();
    // For each open mapping or list: the event that began it, whether it is a list, the last key.
    let mut open: Vec<(usize, bool, Option<String>)> = Vec::new();
    for (number, event) in Parser::new_from_str(text).enumerate() {
        let Ok((event, _)) = event else { break };
        match event {
            Event::Scalar(word, ..) => {
                let list = open.len().checked_sub(2).and_then(|at| open.get(at));
                let holder = open.len().checked_sub(3).and_then(|at| open.get(at));
                let named = list.is_some_and(|it| it.1)
                    && holder
                        .is_some_and(|it| it.2.as_deref().is_some_and(|key| NAMED.contains(&key)));
                if let Some((began, false, key)) = open.last_mut() {
                    match key.take() {
                        None => *key = Some(word.into_owned()),
                        Some(key) if named && key == "name" => {
                            found.insert(*began, word.into_owned());
                        }
                        Some(_) => {}
                    }
                }
            }
            Event::Alias(_) => value_ends(&mut open),
            Event::SequenceStart(..) => open.push((number, true, None)),
            Event::MappingStart(..) => open.push((number, false, None)),
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
                value_ends(&mut open);
            }
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::Comment(..)
            | _ => {}
        }
    }
    found
}

fn value_ends(open: &mut [(usize, bool, Option<String>)]) {
    if let Some((_, _, key)) = open.last_mut() {
        *key = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const POLICY: &str = "\
version: 1
organisation: council
services:
  intranet: { prefixes: [10.1.0.10/32], protocol: tcp, ports: [80] }
segments:
  council:
    rules:
      - who: { groups: [staff, ghosts] }
        name: intranet
        what:
          - service: intranet
          - net: { prefixes: [11.0.0.0/8] }
      - { name: rest, who: everyone, what: [{ service: intranet }] }
tests:
  - name: staff / intranet
    given: { user: alice@council }
    to: { service: intranet }
    expect: allow
";

    #[test]
    fn a_finding_gets_the_place_of_what_it_names() {
        let policy = read(POLICY).unwrap();
        for (at, line, column) in [
            ("services/intranet/prefixes/0", 4, 26),
            ("segments/council", 6, 3),
            ("segments/council/rules/intranet", 8, 9),
            ("segments/council/rules/intranet/who/groups/1", 8, 32),
            ("segments/council/rules/intranet/what/1/net/prefixes/0", 12, 31),
            ("segments/council/rules/rest/what/0", 13, 45),
            // What is not written is found where it would stand.
            ("segments/council/rules/rest/when/hours/0", 13, 9),
            ("time_zone", 0, 0),
            ("tests/staff / intranet/given/user", 16, 14),
        ] {
            let mut findings = [Finding::new(format!("policies/council/{at}"), "x")];
            locate(POLICY, &policy, &mut findings);
            let place = findings[0].line.zip(findings[0].column).unwrap_or_default();
            assert_eq!(place, (line, column), "{at}");
        }
        let mut elsewhere = [Finding::new("users/alice@council", "x")];
        locate(POLICY, &policy, &mut elsewhere);
        assert_eq!(elsewhere[0].line, None);
    }

    #[test]
    fn a_slip_is_told_with_line_and_column() {
        for (slip, mended, line, says) in [
            ("version: 1", "version: 2", 1, "version: 1"),
            ("services:", "service:", 3, "service"),
            ("10.1.0.10/32", "10.1.0.10/24", 4, "host bits"),
            ("protocol: tcp", "protocol: tpc", 4, "tpc"),
            ("who: everyone", "who: everybody", 13, "everybody"),
            ("groups: [staff", "group: [staff", 8, "group"),
            ("expect: allow", "expect: permit", 18, "permit"),
            ("{ service: intranet }\n    expect", "{ service: intranet\n    expect", 17, ""),
        ] {
            let text = POLICY.replacen(slip, mended, 1);
            assert_ne!(text, POLICY);
            let refused = read(&text).unwrap_err();
            assert!(refused.detail.contains(says), "{mended}: {refused}");
            let found = refused.line.unwrap();
            assert!((line..=line + 2).contains(&found), "{mended}: {refused}");
            assert!(refused.column.is_some());
        }
    }

    #[test]
    fn what_is_too_long_too_deep_or_multiplies_is_refused_at_once() {
        let mut bomb = String::from("x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n");
        for level in 1..9 {
            let inner = format!("*x{}", level - 1);
            bomb.push_str(&format!("x{level}: &x{level} [{}]\n", [inner.as_str(); 10].join(", ")));
        }
        for (text, says) in [
            ("rules: []\n".repeat(1 << 20), "bytes at most"),
            (format!("segments: {}", "[".repeat(100_000)), ""),
            (format!("segments: {}1", "{a: ".repeat(100_000)), ""),
            (bomb.clone(), ""),
            (
                format!("version: 1\norganisation: council\ntests:\n{}", bomb.replace('x', "  x")),
                "",
            ),
            ("- ".repeat(1 << 20), ""),
            ("version: 1\norganisation: a\n---\nversion: 1\norganisation: b\n".to_owned(), ""),
        ] {
            let began = Instant::now();
            let refused = read(&text).unwrap_err();
            assert!(refused.detail.contains(says), "{refused}");
            assert!(refused.detail.len() < 2_000, "the answer repeats what was sent");
            assert!(began.elapsed().as_secs() < 5, "{refused} took {:?}", began.elapsed());
        }
    }
}
