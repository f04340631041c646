//! Holds the directions of `docs/architecture.md`: who may import whom, what is pure, and where
//! `unsafe` and boringtun may be named.
//!
//! A violation is mended in the code. Only a change of the architecture page changes a table here.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand, Package};

use partywall_datapath::DropReason;
use partywall_proto::admin::Manifest;
use source::Source;

/// What each crate may depend on, in its tests too.
const CRATES: &[(&str, &[&str])] = &[
    ("partywall-proto", &[]),
    ("partywall-aead", &[]),
    ("partywall-datapath", &["partywall-proto", "partywall-aead"]),
    ("partywall-agent", &["partywall-proto", "partywall-datapath"]),
    ("partywall-controller", &["partywall-proto"]),
    (
        "partywall-tests",
        &["partywall-proto", "partywall-datapath", "partywall-agent", "partywall-controller"],
    ),
];

/// What each module of the data path may import. `testing` exists in test builds only.
const DATAPATH: &[(&str, &[&str])] = &[
    ("packet", &[]),
    ("pace", &[]),
    ("settings", &[]),
    ("offload", &["packet"]),
    ("filter", &["packet", "pace", "settings"]),
    ("counters", &["filter"]),
    ("tunnel", &["settings"]),
    ("peers", &["packet", "filter", "counters", "tunnel"]),
    ("shard", &["packet", "pace", "settings", "offload", "filter", "counters", "tunnel", "peers"]),
];

/// What each module of the controller may import. `ctl` speaks REST and nothing else; `daemon` joins
/// an app to its store.
const CONTROLLER: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("store", &["domain"]),
    ("pki", &[]),
    ("flows", &["domain", "pki"]),
    ("app", &["domain", "store", "flows"]),
    ("background", &["app"]),
    ("http", &["app", "domain", "pki"]),
    ("console", &["app", "domain"]),
    ("daemon", &["app", "flows", "http", "pki", "store"]),
    ("ctl", &["pki"]),
];

/// Words that pure code cannot contain: clocks, I/O, threads, async and telemetry.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "std::fs",
    "std::io",
    "std::thread",
    "std::process",
    "std::env",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "tokio",
    "async",
    "await",
    "tracing",
    "println",
    "eprintln",
];

/// Crates that the pure ones must not depend on, whatever they would use them for.
const IMPURE_CRATES: &[&str] = &[
    "axum",
    "libc",
    "nix",
    "quinn-udp",
    "reqwest",
    "rtnetlink",
    "rustix",
    "rustls",
    "sled",
    "socket2",
    "tokio",
    "tracing",
];

/// Where `unsafe` may be: behind a safe interface that a test can reach.
const UNSAFE: [&str; 2] = ["agent/src/sys/", "agent/aead/src/wide/"];

/// Everything that a clone has at its top, apart from names that begin with a dot.
const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "agent",
    "clippy.toml",
    "controller",
    "docs",
    "proto",
    "rustfmt.toml",
    "scripts",
    "target",
    "tests",
];

const LINES_MAX: usize = 500;

#[test]
fn crates_depend_downwards_only() {
    let metadata = workspace();
    let members: Vec<&Package> = metadata.workspace_packages();
    let names: BTreeSet<&str> = members.iter().map(|package| package.name.as_str()).collect();
    let known: BTreeSet<&str> = CRATES.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, known, "the workspace's crates");
    let allowed: BTreeMap<&str, &[&str]> = CRATES.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in members {
        for dependency in &package.dependencies {
            let ours = known.contains(dependency.name.as_str());
            if ours && !allowed[package.name.as_str()].contains(&dependency.name.as_str()) {
                wrong.push(format!("{} depends on {}", package.name, dependency.name));
            }
        }
    }
    none("crates depend upwards", &wrong);
}

#[test]
fn pure_crates_depend_on_nothing_that_does_io() {
    let mut wrong = Vec::new();
    for package in workspace().workspace_packages() {
        let name = package.name.as_str();
        for dependency in &package.dependencies {
            let used = dependency.name.as_str();
            let pure = ["partywall-proto", "partywall-aead", "partywall-datapath"].contains(&name);
            if pure && IMPURE_CRATES.contains(&used) {
                wrong.push(format!("{name} depends on {used}"));
            }
            if used == "boringtun" && name != "partywall-datapath" {
                wrong.push(format!("{name} depends on boringtun; the data path wraps it"));
            }
            if used == "sled" && name != "partywall-controller" {
                wrong.push(format!("{name} depends on sled; the store wraps it"));
            }
            // It would make every tunnel of the build tell the time by a test's clock.
            if dependency.features.iter().any(|feature| feature == "mock-instant") {
                wrong.push(format!("{name} enables {used}'s mock-instant"));
            }
        }
    }
    none("dependencies are out of place", &wrong);
}

#[test]
fn modules_of_the_data_path_import_downwards_only() {
    none("imports go upwards", &upward_imports("agent/datapath/src", DATAPATH));
}

#[test]
fn modules_of_the_controller_import_downwards_only() {
    none("imports go upwards", &upward_imports("controller/src", CONTROLLER));
}

#[test]
fn the_data_path_the_domain_and_the_protocol_are_pure() {
    let mut wrong = Vec::new();
    for root in ["proto/src", "agent/aead/src", "agent/datapath/src", "controller/src/domain"] {
        for source in sources(root).iter().filter(|source| !source.is_test()) {
            for word in IMPURE.iter().filter(|word| source.names(word)) {
                wrong.push(format!("{} names {word}", source.path));
            }
        }
    }
    none("pure code reaches for the world", &wrong);
}

#[test]
fn exactly_one_file_names_boringtun() {
    // Tests may, for it is their other side, and the benchmarks, which measure against its own program.
    let naming: Vec<String> = ["proto", "agent", "controller"]
        .into_iter()
        .flat_map(sources)
        .filter(|source| !source.is_test() && source.names_anywhere("boringtun"))
        .map(|source| source.path.clone())
        .collect();
    assert_eq!(naming, ["agent/datapath/src/tunnel/gate.rs"]);
}

#[test]
fn unsafe_stays_in_the_agents_sys_and_the_ciphers_registers() {
    let wrong: Vec<String> = every_source()
        .iter()
        .filter(|source| {
            let holds = |place| source.path.starts_with(place);
            source.names_anywhere("unsafe") && !UNSAFE.into_iter().any(holds)
        })
        .map(|source| source.path.clone())
        .collect();
    none("unsafe outside its places", &wrong);
}

#[test]
fn every_file_says_what_it_is_for_and_is_of_a_size_to_be_read() {
    let mut wrong = Vec::new();
    for source in every_source() {
        if !source.text.trim_start_matches("#![no_main]\n").starts_with("//! ") {
            wrong.push(format!("{} does not open with a sentence on what it is for", source.path));
        }
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{} has {lines} lines; split it", source.path));
        }
    }
    none("files are out of style", &wrong);
}

#[test]
fn the_hot_path_that_the_linker_lays_out_is_there() {
    let crates = [
        ("partywall_agent", "agent/src"),
        ("partywall_datapath", "agent/datapath/src"),
        ("partywall_aead", "agent/aead/src"),
    ];
    let mut wrong = Vec::new();
    let mut seen = 0;
    for line in document("agent/hot-path.ld").lines() {
        for (name, folder) in crates {
            let Some((_, path)) = line.split_once(name) else { continue };
            seen += 1;
            let names = mangled_names(path);
            let sources = sources(folder);
            let module = |depth: usize| {
                let wanted = if depth == 0 { &["lib".to_owned()] } else { &names[..depth] };
                sources.iter().find(|source| source.module(folder) == wanted)
            };
            let deepest = (0..=names.len()).rev().find_map(|at| Some((module(at)?, &names[at..])));
            let is_there = !names.is_empty()
                && deepest.is_some_and(|(file, rest)| rest.iter().all(|name| file.names(name)));
            if !is_there {
                wrong.push(line.trim().to_owned());
            }
        }
    }
    assert!(seen >= 20, "only {seen} patterns of ours were recognised");
    none("agent/hot-path.ld names what is not there", &wrong);
}

#[test]
fn the_policy_model_has_a_line_for_each_drop_reason() {
    let page = document("docs/policy-model.md");
    let rows: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")).collect();
    let missing: Vec<String> = DropReason::ALL
        .into_iter()
        .map(|reason| format!("{reason}` | {} |", reason.sentence()))
        .filter(|row| !rows.iter().any(|line| line.starts_with(row.as_str())))
        .collect();
    none("docs/policy-model.md lacks these rows, or words them otherwise than the code", &missing);
}

#[test]
fn manifests_in_the_documents_are_read() {
    let mut seen = 0;
    for path in [
        "README.md",
        "docs/policy-model.md",
        "docs/guides/facilities.md",
        "docs/guides/network-admin.md",
    ] {
        let text = document(path);
        for example in text.split("```yaml\n").skip(1) {
            let example = example.split("```").next().unwrap_or_default();
            if let Err(error) = serde_saphyr::from_str::<Manifest>(example) {
                panic!("{path}: {error}\n{example}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 6, "only {seen} examples were found");
}

#[test]
fn the_top_level_is_what_the_architecture_names() {
    let entries = fs::read_dir(root()).expect("the workspace is there");
    let wrong: Vec<String> = entries
        .map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    none("names at the top level that nobody agreed on", &wrong);
}

/// The parts of a path as compilers write them, each behind its length, until the pattern ends; `*` may stand between.
/// None of what is no such path.
fn mangled_names(mut text: &str) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        text = text.trim_start_matches('*');
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if text.starts_with(')') {
            return names;
        }
        let Ok(length) = text[..digits].parse::<usize>() else { return Vec::new() };
        let Some(name) = text[digits..].get(..length) else { return Vec::new() };
        names.push(name.to_owned());
        text = &text[digits + length..];
    }
}

fn upward_imports(folder: &str, table: &[(&str, &[&str])]) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = table.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for source in sources(folder).iter().filter(|source| !source.is_test()) {
        let module = source.module(folder);
        let Some(top) = module.first().filter(|top| *top != "bin" && *top != "lib") else {
            continue;
        };
        let Some(allowed) = allowed.get(top.as_str()) else {
            wrong
                .push(format!("{}: module {top} has no row in the architecture test", source.path));
            continue;
        };
        for import in source.imports(&module) {
            seen += 1;
            let known = table.iter().any(|(name, _)| *name == import);
            if known && import != *top && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{}: {top} imports {import}", source.path));
            }
        }
    }
    assert!(seen > 0, "no import was recognised under {folder}");
    wrong
}

fn every_source() -> Vec<Source> {
    ["proto", "agent", "controller", "tests"].into_iter().flat_map(sources).collect()
}

/// All Rust files under a folder of the workspace, sorted by path.
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the workspace can be listed") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file can be read");
                let path = path.strip_prefix(root()).expect("it lies in the workspace");
                found.push(Source::new(path.to_string_lossy().into_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "no Rust file under {folder}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn document(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("a document of the workspace can be read")
}

fn workspace() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo describes the workspace")
}

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests lie in the workspace").to_owned()
}

fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}
