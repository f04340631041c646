//! A stock WireGuard client on a host of the lab: its key, its config, and wg-quick.

use crate::lab::{PATIENCE, wait_for};

use super::Stage;

/// The tunnel's interface and config name.
pub const INTERFACE: &str = "wg0";

/// A device whose key was made on the device itself.
#[derive(Debug, Clone)]
pub struct Stock {
    /// Which host of the lab it is.
    pub host: String,
    /// Its private key, as wg-quick writes it.
    pub private_key: String,
    /// As the controller prints it, without the private key.
    pub config: String,
}

impl Stock {
    /// Takes our agent off `host`, makes a key there, registers its public half as `device` of `owner`,
    /// and fetches the config.
    pub fn register(stage: &mut Stage, host: &str, device: &str, owner: &str) -> Self {
        stage.end_agent(host, rustix::process::Signal::TERM);
        let organisation = owner.split_once('@').unwrap().1.to_owned();
        let private_key = stage.host(host).ok(&["wg", "genkey"]).unwrap().trim().to_owned();
        let public =
            stage.host(host).run_with_input(&["wg", "pubkey"], &private_key).unwrap().ok().unwrap();
        let manifest = format!(
            "devices:\n  - name: {device}\n    owner: {owner}\n    kind: {{ runs: stock, wireguard_key: {:?} }}\n",
            public.trim()
        );
        stage.ctl(&organisation, &["apply", "-f", "-"], &manifest).unwrap().ok().unwrap();
        let print = ["stock-config", device, "--segment", &organisation];
        let config = stage.ctl(&organisation, &print, "").unwrap().ok().unwrap();
        Self { host: host.into(), private_key, config }
    }

    /// Fills the private key in and brings the tunnel up. Each change is what the device's owner makes
    /// of the file: a line's beginning, and what it becomes.
    pub fn up(&self, stage: &Stage, changes: &[(&str, &str)]) {
        let changed = |line: &str| -> String {
            let plain = line.trim_start_matches(['#', ' ']);
            if plain.starts_with("PrivateKey") {
                return format!("PrivateKey = {}", self.private_key);
            }
            // wg-quick hands names to resolvconf(8), which the lab's hosts do not have.
            if line.starts_with("DNS") {
                return String::new();
            }
            let found = changes.iter().find(|(begin, _)| line.starts_with(begin));
            found.map_or_else(|| line.to_owned(), |(_, new)| (*new).to_owned())
        };
        let text: String = self.config.lines().map(|line| changed(line) + "\n").collect();
        let host = stage.host(&self.host);
        let file =
            format!("umask 077; mkdir -p /etc/wireguard; cat >/etc/wireguard/{INTERFACE}.conf");
        host.run_with_input(&["sh", "-c", &file], &text).unwrap().ok().unwrap();
        let up = [
            "env",
            "WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go",
            "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1",
        ];
        let up = [&up[..], &["wg-quick", "up", INTERFACE]].concat();
        host.ok(&up).unwrap_or_else(|error| panic!("{error:#}; the config is:\n{text}"));
        wait_for("the tunnel's interface is up", PATIENCE, || {
            host.run(&["wg", "show", INTERFACE]).unwrap().success()
        })
        .unwrap();
    }

    /// Takes the tunnel down.
    pub fn down(&self, stage: &Stage) {
        stage.host(&self.host).ok(&["wg-quick", "down", INTERFACE]).unwrap();
    }

    /// Whether the gateway ever answered.
    pub fn has_handshake(&self, stage: &Stage) -> bool {
        let shown =
            stage.host(&self.host).ok(&["wg", "show", INTERFACE, "latest-handshakes"]).unwrap();
        shown.lines().any(|line| line.split_whitespace().nth(1).is_some_and(|at| at != "0"))
    }

    /// A value of the config, as in `PresharedKey = VALUE`.
    pub fn value(&self, name: &str) -> Option<String> {
        self.config.lines().find_map(|line| {
            let (found, value) = line.split_once('=')?;
            (found.trim() == name).then(|| value.trim().to_owned())
        })
    }
}
