//! A desk whose own link is the slow one: whoever uploads there leaves room for the others.

use std::time::Duration;

use partywall_tests::stage::{Line, Stage};

/// A bad Wi-Fi. Its queue holds more than any socket may, so that nothing but the agent keeps it short.
const LINK: &str = "tc qdisc replace dev eth0 root tbf rate 20mbit burst 32kb limit 8mb";
/// It does not pace as BBR does, and sends until something is lost.
const UNPACED: &str = "net.ipv4.tcp_congestion_control=reno";
const SERVER: &str = "10.1.0.10";
const PINGS: usize = 60;
/// One super-packet is 26 ms of that link, and what may stand is little more than one. A socket's buffer is 170 ms
/// with a kernel's first settings, and seconds with larger ones.
const MEDIAN_MAX: Duration = Duration::from_millis(100);

#[test]
fn an_upload_over_a_slow_link_keeps_nobody_waiting() {
    let mut stage = Stage::up();
    stage.sign_in("desk-1", "alice@council", "council");
    let desk = stage.host("desk-1");
    desk.ok(&LINK.split(' ').collect::<Vec<_>>()).unwrap();
    desk.ok(&["sysctl", "-qw", UNPACED]).unwrap();

    let (report, pings) = std::thread::scope(|scope| {
        let upload = scope.spawn(|| desk.ok(&["iperf3", "-J", "-c", SERVER, "-t", "8"]).unwrap());
        // Until it has filled what it can.
        std::thread::sleep(Duration::from_secs(3));
        let count = PINGS.to_string();
        let pings = desk.run(&["ping", "-n", "-i", "0.05", "-c", &count, SERVER]).unwrap().stdout;
        Line::open(desk, "TCP:10.1.0.10:7").unwrap();
        (upload.join().unwrap(), pings)
    });

    let mut times: Vec<f64> = pings
        .lines()
        .filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok())
        .collect();
    assert!(times.len() > PINGS / 2, "{pings}");
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    assert!(median < MEDIAN_MAX.as_secs_f64() * 1e3, "{median} ms: {pings}");
    assert!(stage.drops("desk-1")["backlog"] > 0, "nothing had to wait");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let bits_per_s = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap();
    assert!(bits_per_s > 14e6, "the link is not used: {bits_per_s} bit/s");
}
