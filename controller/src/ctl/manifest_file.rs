//! Manifests as files: YAML in, YAML out.
//!
//! A manifest is refused as a whole, with file, line and column, at the first thing in it that is not
//! understood; half a manifest is never sent. JSON is YAML, so JSON files are read too.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use partywall_proto::admin::{BODY_MAX_BYTES, Manifest};

use super::CtlError;

/// Reads all `files` as one manifest. What is in two of them is refused.
pub(super) fn read(files: &[PathBuf]) -> Result<Manifest, CtlError> {
    let mut whole = Manifest::default();
    let mut origin: BTreeMap<String, String> = BTreeMap::new();
    for path in files {
        let (name, text) = text_of(path)?;
        for part in parse(&name, &text)? {
            for resource in resources(&part) {
                if let Some(first) = origin.insert(resource.clone(), name.clone()) {
                    return Err(CtlError::Manifest(format!(
                        "{resource} is set up twice, in {first} and in {name}; keep one of them"
                    )));
                }
            }
            merge(&mut whole, part);
        }
    }
    match whole == Manifest::default() {
        true => Err(CtlError::Manifest("the files set up nothing".to_owned())),
        false => Ok(whole),
    }
}

/// `manifest` as YAML, so that [`read`] gives it back.
pub(super) fn write(manifest: &Manifest) -> Result<String, CtlError> {
    serde_saphyr::to_string(manifest)
        .map_err(|error| CtlError::Manifest(format!("cannot write the manifest as YAML: {error}")))
}

/// Reads the documents of one file.
pub(super) fn parse(name: &str, text: &str) -> Result<Vec<Manifest>, CtlError> {
    let options = serde_saphyr::options! {
        // Anchors that multiply: a few hundred bytes must not become gigabytes.
        budget: serde_saphyr::budget! {
            max_events: 2_000_000,
            max_nodes: 1_000_000,
            max_depth: 32,
            max_aliases: 1_000,
            max_documents: 64,
        },
        // `no` is a word; `disabled: no` would be read as true or false by different readers.
        strict_booleans: true,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| explain(name, &error))
}

/// `council.yaml:4:5: what is wrong`, and the lines around it.
fn explain(name: &str, error: &serde_saphyr::Error) -> CtlError {
    let rendered =
        error.render_with_options(serde_saphyr::render_options! { source_name: Some(name) });
    let Some(location) = error.location() else {
        return CtlError::Manifest(format!("{name}: {rendered}"));
    };
    let (line, column) = (location.line(), location.column());
    let said_already = format!("error: line {line} column {column}: ");
    let rest = rendered.strip_prefix(&said_already).unwrap_or(&rendered);
    CtlError::Manifest(format!("{name}:{line}:{column}: {rest}"))
}

/// What a file is called in messages, and its text.
pub(super) fn text_of(path: &Path) -> Result<(String, String), CtlError> {
    let failed = |source| CtlError::Read { path: path.to_owned(), source };
    let (name, mut source): (String, Box<dyn std::io::Read>) = match path == Path::new("-") {
        true => ("standard input".to_owned(), Box::new(std::io::stdin().lock())),
        false => (path.display().to_string(), Box::new(std::fs::File::open(path).map_err(failed)?)),
    };
    let limit = BODY_MAX_BYTES as u64;
    let mut text = String::new();
    (&mut source).take(limit + 1).read_to_string(&mut text).map_err(failed)?;
    match text.len() > BODY_MAX_BYTES {
        true => Err(CtlError::Manifest(format!(
            "{name} is larger than {limit} bytes; split the change"
        ))),
        false => Ok((name, text)),
    }
}

fn merge(whole: &mut Manifest, part: Manifest) {
    let Manifest {
        organisations,
        buildings,
        segments,
        gateways,
        devices,
        groups,
        users,
        policies,
        flow_settings,
    } = part;
    whole.organisations.extend(organisations);
    whole.buildings.extend(buildings);
    whole.segments.extend(segments);
    whole.gateways.extend(gateways);
    whole.devices.extend(devices);
    whole.groups.extend(groups);
    whole.users.extend(users);
    whole.policies.extend(policies);
    whole.flow_settings.extend(flow_settings);
}

fn resources(manifest: &Manifest) -> Vec<String> {
    let Manifest {
        organisations,
        buildings,
        segments,
        gateways,
        devices,
        groups,
        users,
        policies,
        flow_settings,
    } = manifest;
    let mut paths = Vec::new();
    paths.extend(organisations.iter().map(|spec| format!("organisations/{}", spec.name)));
    paths.extend(buildings.iter().map(|spec| format!("buildings/{}", spec.name)));
    paths.extend(segments.iter().map(|spec| format!("segments/{}", spec.name)));
    paths.extend(gateways.iter().map(|spec| format!("gateways/{}", spec.name)));
    paths.extend(devices.iter().map(|spec| format!("devices/{}", spec.name)));
    let group = |spec: &partywall_proto::admin::GroupSpec| {
        format!("organisations/{}/groups/{}", spec.organisation, spec.name)
    };
    paths.extend(groups.iter().map(group));
    paths.extend(users.iter().map(|spec| format!("users/{}", spec.name)));
    let settings = |spec: &partywall_proto::admin::FlowSettingsSpec| {
        format!("organisations/{}/flow-settings", spec.organisation)
    };
    paths.extend(flow_settings.iter().map(settings));
    paths.extend(policies.iter().map(|spec| format!("policies/{}", spec.organisation)));
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNCIL: &str = "\
organisations:
  - name: council
    title: The Council
    code_step_s: 8
segments:
  - name: council
    organisation: council
    title: Council network
    pools: [10.200.0.0/16, 'fd20::/64']
    prefixes: [10.0.0.0/8]
    tunnel: split
    dns:
      servers: [10.1.0.53]
";

    #[test]
    fn several_files_and_documents_become_one_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let one = file(&dir, "one.yaml", COUNCIL);
        let users = "users:\n  - name: alice@council\n    title: Alice\n---\ngroups:\n  - organisation: council\n    name: staff\n    title: Staff\n";
        let two = file(&dir, "two.yaml", users);
        let manifest = read(&[one, two]).unwrap();
        assert_eq!(
            resources(&manifest),
            [
                "organisations/council",
                "segments/council",
                "organisations/council/groups/staff",
                "users/alice@council"
            ]
        );
    }

    #[test]
    fn what_is_written_reads_back_as_the_same() {
        let manifest = parse("c.yaml", COUNCIL).unwrap().remove(0);
        assert_eq!(parse("again", &write(&manifest).unwrap()).unwrap(), [manifest]);
    }

    #[test]
    fn a_slip_is_shown_with_file_line_and_column() {
        for (slip, mended, line, says) in [
            ("code_step_s: 8", "code_steps: 8", 4, "code_steps"),
            ("tunnel: split", "tunnel: slpit", 11, "slpit"),
            ("[10.0.0.0/8]", "[10.0.0.1/8]", 10, "host bits"),
            ("servers: [10.1.0.53]", "servers: [10.1.0.53", 13, ""),
        ] {
            let text = COUNCIL.replace(slip, mended);
            assert_ne!(text, COUNCIL);
            let refused = parse("council.yaml", &text).unwrap_err().to_string();
            assert!(refused.contains(&format!("council.yaml:{line}:")), "{mended}: {refused}");
            assert!(refused.contains(says), "{refused}");
        }
    }

    #[test]
    fn a_resource_in_two_files_is_refused_and_both_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let refused = read(&[file(&dir, "a.yaml", COUNCIL), file(&dir, "b.yaml", COUNCIL)]);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("a.yaml") && refused.contains("b.yaml"), "{refused}");
    }

    #[test]
    fn aliases_that_multiply_are_refused() {
        let mut bomb = String::from("x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n");
        for level in 1..9 {
            let inner = format!("*x{}", level - 1);
            bomb.push_str(&format!("x{level}: &x{level} [{}]\n", [inner.as_str(); 10].join(", ")));
        }
        parse("bomb.yaml", &bomb).unwrap_err();
    }

    fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}
