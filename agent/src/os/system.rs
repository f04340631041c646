//! Makes the operating system look as desired, from whatever state it is in.
//!
//! The order is the promise: guard up, old things away, old sockets dead, settings, new things,
//! names; on the way to nothing the guard goes last. Undoing goes on past what fails, and reports
//! the first failure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::os::desired::Desired;
use crate::os::dns;
use crate::os::error::OsError;
use crate::os::netlink::Netlink;
use crate::os::nft;
use crate::os::plan::{Current, QUEUE_PACKETS, Step, plan};
use crate::os::record::Record;
use crate::os::resolv_conf::ResolvConf;
use crate::os::{sockets, sysctl};

/// Where the agent lives on this machine.
#[derive(Debug, Clone)]
pub struct SystemOptions {
    /// The TUN interface's name.
    pub tun_name: String,
    /// Where the agent remembers what it changed. Must exist.
    pub state_dir: PathBuf,
    /// The resolver's file, `/etc/resolv.conf` but in tests.
    pub resolv_conf: PathBuf,
}

impl SystemOptions {
    /// For this TUN and state directory, and the usual resolver's file.
    pub fn new(tun_name: impl Into<String>, state_dir: impl Into<PathBuf>) -> Self {
        let resolv_conf = Path::new("/etc/resolv.conf").to_owned();
        Self { tun_name: tun_name.into(), state_dir: state_dir.into(), resolv_conf }
    }
}

/// The operating system as the agent may change it.
#[derive(Debug)]
pub struct System {
    options: SystemOptions,
    resolv_conf: ResolvConf,
}

impl System {
    /// Touches nothing yet.
    pub fn new(options: SystemOptions) -> Self {
        let resolv_conf = ResolvConf::new(&options.resolv_conf, &options.state_dir);
        Self { options, resolv_conf }
    }

    /// Undoes what any earlier run left: for the time after a crash, and before the first config of
    /// a start. To go straight from a crash to a config, [`reconcile`](Self::reconcile) alone will
    /// do, and keeps the guard up.
    ///
    /// # Errors
    /// The first step that failed; all others were tried.
    pub async fn mend(options: &SystemOptions) -> Result<(), OsError> {
        Self::new(options.clone()).reconcile(&Desired::nothing()).await
    }

    /// Makes the system look as `desired`. The same again changes nothing. The TUN must be open
    /// unless nothing is desired.
    ///
    /// # Errors
    /// The first step that failed. On the way up the rest is left undone, with the guard standing;
    /// on the way to nothing the rest is done all the same.
    pub async fn reconcile(&mut self, desired: &Desired) -> Result<(), OsError> {
        let netlink = Netlink::connect()?;
        let mut current = netlink.fetch(&self.options.tun_name).await?;
        current.table = nft::fetch().await?;
        let plan = plan(&current, desired);
        let before = Record::load(&self.options.state_dir)?;
        let mut effort = Effort { undoing: desired.is_nothing(), first_error: None };

        if let Some(ruleset) = &plan.tighten {
            nft::replace(ruleset).await?;
        }
        if desired.names.is_none() {
            let has_link = current.link.is_some();
            let released = dns::release(&self.options.tun_name, has_link, &self.resolv_conf).await;
            effort.take(released)?;
        }
        self.carry_out(&netlink, &current, &plan.remove, &mut effort).await?;
        kill_old_sockets(&before, desired);
        self.settle(&before, desired, &mut effort)?;
        if desired.link.is_some() {
            if current.link.is_none() {
                return Err(OsError::NoLink { name: self.options.tun_name.clone() });
            }
            sysctl::prepare_link(&self.options.tun_name)?;
        }
        self.carry_out(&netlink, &current, &plan.add, &mut effort).await?;
        if plan.add.contains(&Step::LinkUp) {
            let segments = desired.link.as_ref().and_then(|link| link.segments);
            tracing::info!(queue_packets = QUEUE_PACKETS, segments, "the tunnel's interface is up");
        }
        if let Some(names) = &desired.names {
            dns::hold(names, &self.options.tun_name, &self.resolv_conf).await?;
        }
        if plan.loosen {
            effort.take(nft::remove().await)?;
        }
        effort.first_error.map_or(Ok(()), Err)
    }

    async fn carry_out(
        &self,
        netlink: &Netlink,
        current: &Current,
        steps: &[Step],
        effort: &mut Effort,
    ) -> Result<(), OsError> {
        let link = current.link.as_ref().map_or(0, |link| link.index);
        for step in steps {
            match netlink.carry_out(step, link).await {
                Err(error) if step.is_tuning() => {
                    tracing::warn!(%error, "the tunnel works all the same, if less fast");
                }
                done => effort.take(done)?,
            }
        }
        Ok(())
    }

    /// Brings the kernel's settings and the record of them to where `desired` wants them. A crash
    /// at any point leaves a record that knows at least as much as was changed.
    fn settle(
        &self,
        before: &Record,
        desired: &Desired,
        effort: &mut Effort,
    ) -> Result<(), OsError> {
        let wanted = sysctl::with_consequences(&desired.sysctls);
        let mut originals: BTreeMap<String, String> = before.sysctls.clone();
        for (setting, value) in &wanted {
            if let Some(is) = sysctl::read(setting).filter(|is| is != value) {
                originals.entry(setting.clone()).or_insert(is);
            }
        }
        let mut record = Record {
            session: desired.session.clone(),
            addresses: desired.addresses(),
            sysctls: originals,
        };
        effort.take(save(before, &record, &self.options.state_dir))?;
        let during = record.clone();
        for (setting, original) in &during.sysctls {
            let goal = wanted.get(setting).unwrap_or(original);
            let is = sysctl::read(setting);
            if is.as_ref().is_some_and(|is| is != goal) {
                effort.take(sysctl::write(setting, goal))?;
            }
            if !wanted.contains_key(setting) {
                record.sysctls.remove(setting);
            }
        }
        effort.take(save(&during, &record, &self.options.state_dir))
    }
}

/// Going on past errors, or not.
struct Effort {
    undoing: bool,
    first_error: Option<OsError>,
}

impl Effort {
    fn take(&mut self, done: Result<(), OsError>) -> Result<(), OsError> {
        match done {
            Err(error) if self.undoing => {
                match &self.first_error {
                    None => self.first_error = Some(error),
                    Some(_) => tracing::warn!(%error, "undoing goes on past a second error"),
                }
                Ok(())
            }
            done => done,
        }
    }
}

fn save(before: &Record, record: &Record, state_dir: &Path) -> Result<(), OsError> {
    if before == record { Ok(()) } else { record.save(state_dir) }
}

/// Connections of a session that is over hang until they time out unless somebody ends them.
fn kill_old_sockets(before: &Record, desired: &Desired) {
    let kept =
        if before.session == desired.session { desired.addresses() } else { BTreeSet::new() };
    let old: BTreeSet<IpAddr> = before.addresses.difference(&kept).copied().collect();
    match sockets::kill_bound_to(&old) {
        Ok(0) => {}
        Ok(killed) => tracing::debug!(killed, "ended connections of the session that is over"),
        Err(error) => {
            tracing::warn!(%error, "connections of the session that is over will only time out")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::desired::tests::{device_config, gateway_config};
    use crate::os::plan::Plan;
    use crate::os::{FWMARK, ruleset::Ruleset};
    use crate::sys::netns::{self, Elsewhere, shell};
    use crate::sys::tun::{Features, TunQueue};
    use partywall_proto::overlay::OverlayConfig;
    use std::io::ErrorKind;
    use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::time::Duration;

    const TUN: &str = "pw-test0";
    /// Past this something is broken, not slow.
    const DEADLINE: Duration = Duration::from_secs(10);
    /// How long an unanswered opening is given; an answered one takes microseconds.
    const SILENCE: Duration = Duration::from_millis(300);
    /// A LAN port with an address in each family and a router that is never there.
    /// The kernel adds no addresses of its own, which would come and go while pictures are taken.
    const LAN: &str = "ip link set lo up; ip link add lan0 type veth peer name far0
        ip link set lan0 addrgenmode none up; ip link set far0 addrgenmode none up
        ip addr add 192.0.2.5/24 dev lan0; ip addr add 2001:db8::5/64 dev lan0 nodad
        ip route add default via 192.0.2.254; ip -6 route add default via 2001:db8::ffff
        ip neigh add 192.0.2.254 lladdr 02:00:00:00:00:01 dev lan0
        ip neigh add 2001:db8::ffff lladdr 02:00:00:00:00:01 dev lan0";

    struct Machine {
        state: tempfile::TempDir,
        system: System,
    }

    impl Machine {
        fn new() -> Self {
            let state = tempfile::tempdir().unwrap();
            std::fs::write(state.path().join("resolv.conf"), "nameserver 192.0.2.53\n").unwrap();
            let system = System::new(options(state.path()));
            Self { state, system }
        }

        async fn reconcile(&mut self, config: &OverlayConfig) {
            self.system.reconcile(&Desired::for_config(config, TUN, None)).await.unwrap();
        }

        async fn mend(&self) {
            System::mend(&options(self.state.path())).await.unwrap();
        }

        fn resolv_conf(&self) -> String {
            std::fs::read_to_string(self.state.path().join("resolv.conf")).unwrap()
        }
    }

    fn options(state: &Path) -> SystemOptions {
        SystemOptions { resolv_conf: state.join("resolv.conf"), ..SystemOptions::new(TUN, state) }
    }

    /// All that the agent may change, as the system's own tools show it.
    fn picture() -> String {
        shell(
            "ip -o addr | sed 's/ valid_lft.*//'; ip rule; ip -6 rule; ip route show table all;
            ip -6 route show table all; nft list ruleset;
            cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding \
                /proc/sys/net/ipv4/conf/all/src_valid_mark /proc/sys/net/ipv6/conf/*/accept_ra",
        )
    }

    fn send(mark: u32, to: &str) -> std::io::Result<usize> {
        let to: SocketAddr = to.parse().unwrap();
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket2::SockRef::from(&socket).set_mark(mark).unwrap();
        socket.send_to(b"x", to)
    }

    fn is_cut(sent: std::io::Result<usize>) -> bool {
        sent.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    /// What the kernel does when the agent is killed.
    fn close(queue: TunQueue) {
        drop(queue);
        netns::wait_until_gone(TUN);
    }

    fn tun() -> TunQueue {
        TunQueue::open(TUN, Features::default()).unwrap()
    }

    #[test]
    fn whoever_reconciles_may_do_so_on_any_thread() {
        fn movable<T: Send>(_: &T) {}
        let mut machine = Machine::new();
        movable(&machine.system.reconcile(&Desired::nothing()));
    }

    #[test]
    fn every_config_comes_and_goes_without_a_trace_and_the_same_again_changes_nothing() {
        for config in [
            device_config("split"),
            device_config("full"),
            gateway_config("nat"),
            gateway_config("routed"),
        ] {
            netns::in_private_network_async(|| async {
                shell(LAN);
                let before = picture();
                let mut machine = Machine::new();
                let queue = tun();
                machine.reconcile(&config).await;
                let netlink = Netlink::connect().unwrap();
                let mut current = netlink.fetch(TUN).await.unwrap();
                current.table = nft::fetch().await.unwrap();
                assert_eq!(
                    plan(&current, &Desired::for_config(&config, TUN, None)),
                    Plan::default()
                );
                let during = picture();
                assert_ne!(during, before);
                machine.reconcile(&config).await;
                assert_eq!(picture(), during);
                machine.system.reconcile(&Desired::nothing()).await.unwrap();
                assert!(!netlink.fetch(TUN).await.unwrap().link.unwrap().up);
                close(queue);
                assert_eq!(picture(), before);
                assert_eq!(std::fs::read_dir(machine.state.path()).unwrap().count(), 1);
            });
        }
    }

    #[test]
    fn a_killed_agent_leaves_the_guard_and_what_mends_leaves_nothing() {
        netns::in_private_network_async(|| async {
            shell(LAN);
            let before = picture();
            let mut machine = Machine::new();
            let queue = tun();
            machine.reconcile(&device_config("split")).await;
            assert!(machine.resolv_conf().contains("nameserver 10.0.0.53"));
            send(0, "10.1.2.3:9").unwrap();
            close(queue);
            for segment in ["10.1.2.3:9", "100.64.0.1:9", "[fd00:10::1]:9"] {
                assert!(is_cut(send(0, segment)), "{segment} leaks");
            }
            send(0, "198.51.100.1:9").unwrap();
            send(FWMARK, "10.1.2.3:9").unwrap();
            machine.mend().await;
            assert_eq!(picture(), before);
            assert_eq!(machine.resolv_conf(), "nameserver 192.0.2.53\n");
            send(0, "10.1.2.3:9").unwrap();
        });
    }

    #[test]
    fn a_full_tunnel_lets_nothing_out_beside_it_but_the_agents_own_and_the_controller() {
        netns::in_private_network_async(|| async {
            shell(LAN);
            let mut machine = Machine::new();
            let queue = tun();
            let config = device_config("full");
            let controller = "192.0.2.9:8443".parse().ok();
            machine.system.reconcile(&Desired::for_config(&config, TUN, controller)).await.unwrap();
            for outside in ["198.51.100.1:9", "[2001:db8:1::1]:9", "10.0.0.1:9"] {
                send(0, outside).unwrap();
            }
            let mut packet = [0; 2048];
            // Router solicitations aside, what was sent is in the tunnel.
            let sent = std::iter::from_fn(|| {
                queue.read(&mut packet).ok().map(|bytes| packet[..bytes].to_vec())
            });
            assert_eq!(sent.filter(|packet| packet.ends_with(b"x")).count(), 3);
            assert!(is_cut(send(0, "192.0.2.77:9")), "a neighbour is reached beside the tunnel");
            assert!(is_cut(send(0, "192.0.2.9:8443")), "the controller is reached by UDP");
            send(FWMARK, "198.51.100.1:9").unwrap();
            close(queue);
            for outside in ["198.51.100.1:9", "[2001:db8:1::1]:9", "10.0.0.1:9"] {
                assert!(is_cut(send(0, outside)), "{outside} leaks");
            }
        });
    }

    #[test]
    fn nothing_on_the_lan_opens_anything_but_what_the_config_offers() {
        netns::in_private_network_async(|| async {
            shell(LAN);
            let mut machine = Machine::new();
            let _queue = tun();
            machine.reconcile(&device_config("split")).await;
            let _offered = TcpListener::bind("0.0.0.0:8050").unwrap();
            let _private = TcpListener::bind("0.0.0.0:9000").unwrap();
            let neighbour = Elsewhere::new();
            shell(&format!("ip link set far0 netns {}", neighbour.thread_id()));
            let _server = neighbour.run(|| {
                shell(
                    "ip link set lo up; ip link set far0 up; ip addr add 192.0.2.77/24 dev far0
                    ip route add 100.64.0.5 via 192.0.2.5",
                );
                TcpListener::bind("192.0.2.77:7000").unwrap()
            });
            // The device may open towards the LAN what is not the segment's.
            assert!(opens("192.0.2.77:7000", DEADLINE));
            assert!(neighbour.run(|| opens("192.0.2.5:8050", DEADLINE)));
            assert!(!neighbour.run(|| opens("192.0.2.5:9000", SILENCE)));
            // The offered service, but by the overlay address.
            assert!(!neighbour.run(|| opens("100.64.0.5:8050", SILENCE)));
            for counter in ["lan_opens", "overlay_destination"] {
                let counted = shell(&format!("nft list counter inet partywall {counter}"));
                assert!(!counted.contains("packets 0 "), "{counted}");
            }
        });
    }

    fn opens(to: &str, wait: Duration) -> bool {
        TcpStream::connect_timeout(&to.parse().unwrap(), wait).is_ok()
    }

    #[test]
    fn a_table_that_somebody_changed_is_put_right_and_other_tables_stay() {
        netns::in_private_network_async(|| async {
            shell(LAN);
            shell("nft add table inet other");
            let mut machine = Machine::new();
            let _queue = tun();
            machine.reconcile(&device_config("split")).await;
            let whole = nft::fetch().await.unwrap();
            for meddling in
                ["nft flush chain inet partywall output", "nft delete table inet partywall"]
            {
                shell(meddling);
                assert_ne!(nft::fetch().await.unwrap(), whole);
                machine.reconcile(&device_config("split")).await;
                assert_eq!(nft::fetch().await.unwrap(), whole);
            }
            machine.mend().await;
            assert_eq!(shell("nft list tables").trim(), "table inet other");
        });
    }

    #[test]
    fn undoing_goes_on_past_what_fails_and_reports_it() {
        netns::in_private_network_async(|| async {
            shell(LAN);
            let before = picture();
            let mut machine = Machine::new();
            let queue = tun();
            machine.reconcile(&device_config("full")).await;
            std::fs::write(machine.state.path().join("resolv.conf.json"), "damaged").unwrap();
            let failed = machine.system.reconcile(&Desired::nothing()).await.unwrap_err();
            assert!(failed.to_string().contains("resolv.conf.json"), "{failed}");
            close(queue);
            assert_eq!(picture(), before);
        });
    }

    #[test]
    fn without_a_tunnel_interface_the_guard_stands_and_the_error_says_what_is_missing() {
        netns::in_private_network_async(|| async {
            shell(LAN);
            let mut machine = Machine::new();
            let desired = Desired::for_config(&device_config("split"), TUN, None);
            let refused = machine.system.reconcile(&desired).await.unwrap_err();
            assert!(matches!(refused, OsError::NoLink { .. }), "{refused}");
            assert!(is_cut(send(0, "10.1.2.3:9")));
        });
    }

    #[test]
    fn rulesets_are_as_committed() {
        for (name, config) in [
            ("device-split", device_config("split")),
            ("device-full", device_config("full")),
            ("gateway-nat", gateway_config("nat")),
        ] {
            let controller = "192.0.2.9:8443".parse().ok();
            let ruleset = Desired::for_config(&config, TUN, controller).ruleset;
            let transaction = ruleset.as_ref().map(Ruleset::replacement).unwrap();
            let is = format!("{transaction:#}\n");
            let path = format!("{}/src/os/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("PARTYWALL_BLESS").is_some() {
                std::fs::write(&path, &is).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(
                is, committed,
                "{path} differs; if that is meant, run with PARTYWALL_BLESS=1"
            );
        }
    }
}
