//! Has the linker lay the daemon's hot path out as `hot-path.ld` says.

fn main() {
    const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hot-path.ld");
    println!("cargo::rustc-link-arg-bin=partywall-agent=-T{SCRIPT}");
    println!("cargo::rerun-if-changed={SCRIPT}");
}
