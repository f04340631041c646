//! The shell script that builds a topology inside the holder's namespaces.
//!
//! Pure: a topology in, a script out. It runs once, in a network namespace that is known to be
//! private, and every interface that it makes is a bridge or one end of a veth pair.

use std::fmt::Write as _;

use super::topology::{HostPlan, Topology};

/// The bridge of a network. Interface names are at most 15 bytes, so long names are cut.
pub(super) fn bridge(network: &str) -> String {
    format!("br-{}", &network[..network.len().min(12)])
}

/// A switch forwards frames and tracks no connections; where the machine has `br_netfilter` loaded, Linux
/// bridges would, at a cost that is nobody's who is measured here.
const PLAIN_SWITCHES: &str = "for tables in arptables ip6tables iptables; do
    call=/proc/sys/net/bridge/bridge-nf-call-$tables
    [ ! -w $call ] || echo 0 >$call
done
";

/// The script for `sh -eu`.
pub(super) fn build(topology: &Topology) -> String {
    let mut text =
        String::from("mkdir -p /run/netns /run/hosts\nmkfifo /run/ready\nip link set lo up\n");
    text.push_str(PLAIN_SWITCHES);
    for network in topology.networks.keys() {
        let bridge = bridge(network);
        // Snooping would keep neighbour discovery from a port until it has been learnt.
        line(
            &mut text,
            &format!(
                "ip link add name {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
            ),
        );
        line(&mut text, &format!("sysctl -qw net.ipv6.conf.{bridge}.disable_ipv6=1"));
        line(&mut text, &format!("ip link set {bridge} up"));
    }
    let mut port = 0;
    for (name, host) in &topology.hosts {
        text.push_str(&namespaces(name, host));
        for (network, link) in &host.links {
            port += 1;
            let bridge = bridge(network);
            let device = &link.name;
            line(
                &mut text,
                &format!("ip link add name p{port} type veth peer name {device} netns {name}"),
            );
            line(&mut text, &format!("sysctl -qw net.ipv6.conf.p{port}.disable_ipv6=1"));
            line(&mut text, &format!("ip link set p{port} master {bridge} up"));
            line(&mut text, &format!("ip -n {name} link set {device} up"));
            for (position, address) in link.addresses.iter().enumerate() {
                // The first address of a family is the one that answers come from.
                let earlier = &link.addresses[..position];
                let second = earlier.iter().any(|net| net.is_ipv6() == address.is_ipv6());
                let flags = match (address.is_ipv6(), second) {
                    (false, _) => "",
                    (true, false) => " nodad",
                    (true, true) => " nodad preferred_lft 0",
                };
                line(&mut text, &format!("ip -n {name} address add {address} dev {device}{flags}"));
            }
        }
        for route in &host.routes {
            let family = if route.via.is_ipv6() { "-6" } else { "-4" };
            line(
                &mut text,
                &format!("ip -n {name} {family} route add {} via {}", route.to, route.via),
            );
        }
    }
    text
}

/// A host's own network, mount and UTS namespaces. A sleeping process holds them, and its id goes to
/// `/run/hosts`: binding a mount namespace to a file instead fails on kernels (6.18) whose namespace
/// ids do not grow with time. `/etc` is a private copy, `/run` and `/var/lib` are empty: a host can
/// change its files without anybody else seeing it. Duplicate address detection and router
/// advertisements are off, for they only cost time.
fn namespaces(name: &str, host: &HostPlan) -> String {
    let nameservers: String =
        host.nameservers.iter().map(|server| format!("nameserver {server}\\n")).collect();
    let forwards = u8::from(host.forwards);
    format!(
        r#"
ip netns add {name}
nsenter --net=/run/netns/{name} sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
  net.ipv6.conf.all.accept_ra=0 net.ipv6.conf.default.accept_ra=0 \
  net.ipv4.ip_forward={forwards} net.ipv6.conf.all.forwarding={forwards}
ip -n {name} link set lo up
nsenter --net=/run/netns/{name} unshare --mount --uts sh -eu 3>/run/ready <<'HOST' &
hostname {name}
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/lab /run/lock /run/partywall /run/wireguard /run/etc/upper /run/etc/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work etc /etc 2>/dev/null || {{
  cp -a /etc /run/etc/copy
  mount --bind /run/etc/copy /etc
}}
rm -f /etc/resolv.conf
printf '{nameservers}' >/etc/resolv.conf
echo {name} >/etc/hostname
printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {name}\n' >/etc/hosts
mount -t tmpfs -o mode=755 state /var/lib
mkdir -p -m 700 /var/lib/partywall
echo $$ >&3
exec sleep infinity </dev/null >/dev/null 2>&1 3>&-
HOST
read -r pid </run/ready
echo "$pid" >/run/hosts/{name}
"#
    )
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("writing to a String does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_is_a_bridge_or_a_veth_inside_the_lab() {
        let script = build(&Topology::named("building").unwrap());
        for line in script.lines().filter(|line| line.contains("link add")) {
            assert!(line.contains("type bridge") || line.contains("type veth"), "{line}");
        }
    }

    #[test]
    fn the_same_topology_gives_the_same_script() {
        let topology = Topology::named("building").unwrap();
        assert_eq!(build(&topology), build(&topology.clone()));
    }

    #[test]
    fn bridge_names_fit_the_kernel() {
        assert!(bridge("a-network-with-a-long-name").len() <= 15);
    }
}
