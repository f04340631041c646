//! Kernel settings under `/proc/sys` that the agent needs, and what they were before.
//!
//! What is changed is remembered on disk first; a setting that already has the value is left alone
//! and not ours to restore.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::os::error::OsError;

const ROOT: &str = "/proc/sys";
const FORWARD_IPV6: &str = "net/ipv6/conf/all/forwarding";

/// A device's settings: reverse-path filtering must look at the mark that replies to the agent
/// carry (`Documentation/networking/ip-sysctl.rst`, `src_valid_mark`).
pub(super) fn for_device() -> BTreeMap<String, String> {
    settings([("net/ipv4/conf/all/src_valid_mark", "1")])
}

/// A gateway's settings: it forwards, and what it forwards is nftables' business.
pub(super) fn for_gateway(ipv6: bool) -> BTreeMap<String, String> {
    let mut wanted = settings([("net/ipv4/ip_forward", "1")]);
    if ipv6 {
        wanted.extend(settings([(FORWARD_IPV6, "1")]));
    }
    wanted
}

/// The interface's own settings, which go with it: IPv6 on, and no addresses or packets of the
/// kernel's making.
pub(super) fn prepare_link(tun_name: &str) -> Result<(), OsError> {
    for (name, value) in [("disable_ipv6", "0"), ("addr_gen_mode", "1"), ("accept_ra", "0")] {
        let setting = format!("net/ipv6/conf/{tun_name}/{name}");
        // A kernel without IPv6 has none of them.
        if read(&setting).is_some_and(|is| is != value) {
            write(&setting, value)?;
        }
    }
    Ok(())
}

/// Adds to what is wanted what it entails: a Linux that forwards IPv6 stops listening to router
/// advertisements, and would lose its own default route, unless told to go on (`accept_ra` 2).
pub(super) fn with_consequences(wanted: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = wanted.clone();
    if !wanted.contains_key(FORWARD_IPV6) {
        return all;
    }
    let interfaces = fs::read_dir(Path::new(ROOT).join("net/ipv6/conf")).into_iter().flatten();
    for interface in interfaces.flatten() {
        let setting =
            format!("net/ipv6/conf/{}/accept_ra", interface.file_name().to_string_lossy());
        if matches!(read(&setting).as_deref(), Some("1" | "2")) {
            all.insert(setting, "2".to_owned());
        }
    }
    all
}

/// The value; none where the kernel has no such setting.
pub(super) fn read(setting: &str) -> Option<String> {
    fs::read_to_string(path(setting)).ok().map(|text| text.trim().to_owned())
}

/// Sets the value.
pub(super) fn write(setting: &str, value: &str) -> Result<(), OsError> {
    let path = path(setting);
    fs::write(&path, value).map_err(OsError::file("change the kernel setting", &path))
}

fn path(setting: &str) -> PathBuf {
    Path::new(ROOT).join(setting)
}

fn settings<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
