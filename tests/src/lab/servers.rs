//! The real servers of a topology: nginx, dnsmasq, socat and iperf3.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::host::Host;
use super::process::Process;
use super::topology::{DnsPlan, HttpPlan, Topology};

/// Size of `/large` and `/slow`, a sparse file.
const LARGE_BYTES: u64 = 1 << 30;

/// Starts every server; returns when all of them listen.
pub(super) fn start(
    topology: &Topology,
    hosts: &BTreeMap<String, Host>,
    dir: &Path,
) -> Result<Vec<Process>> {
    let mut processes = Vec::new();
    let mut listeners = Vec::new();
    for (name, plan) in &topology.hosts {
        let host = &hosts[name];
        let servers = &plan.servers;
        if let Some(http) = &servers.http {
            processes.push(nginx(host, http, dir)?);
            listeners.push((host, 't', 80));
        }
        if let Some(dns) = &servers.dns {
            processes.push(dnsmasq(host, dns)?);
            listeners.push((host, 'u', 53));
        }
        if let Some(port) = servers.echo {
            for (protocol, listen) in [
                ("tcp", format!("TCP6-LISTEN:{port},ipv6only=0,reuseaddr,fork")),
                ("udp", format!("UDP6-RECVFROM:{port},ipv6only=0,reuseaddr,fork")),
            ] {
                processes
                    .push(host.spawn(&format!("echo-{protocol}"), &["socat", &listen, "PIPE"])?);
            }
            listeners.extend([(host, 't', port), (host, 'u', port)]);
        }
        for port in &servers.iperf3 {
            let port_text = port.to_string();
            processes
                .push(host.spawn(&format!("iperf3-{port}"), &["iperf3", "-s", "-p", &port_text])?);
            listeners.push((host, 't', *port));
        }
    }
    for (host, protocol, port) in listeners {
        host.wait_for_listener(protocol, port).with_context(|| {
            let logs: String = processes
                .iter_mut()
                .flat_map(|p| p.must_run().err())
                .map(|e| format!("{e}\n"))
                .collect();
            format!("a server of the lab does not come up\n{logs}")
        })?;
    }
    Ok(processes)
}

fn nginx(host: &Host, plan: &HttpPlan, dir: &Path) -> Result<Process> {
    let root = dir.join(format!("{}-www", host.name()));
    fs::create_dir_all(root.join("tmp"))?;
    fs::write(root.join("index.html"), format!("{}\n", plan.page))?;
    fs::File::create(root.join("large"))?.set_len(LARGE_BYTES)?;
    let config = format!(
        "daemon off; master_process off; user root; error_log stderr; pid {root}/nginx.pid;
events {{}}
http {{
  access_log off; default_type text/plain; sendfile on;
  client_body_temp_path {root}/tmp; proxy_temp_path {root}/tmp; fastcgi_temp_path {root}/tmp;
  uwsgi_temp_path {root}/tmp; scgi_temp_path {root}/tmp;
  server {{
    listen 80; listen [::]:80; root {root};
    location = /slow {{ limit_rate 8m; sendfile_max_chunk 64k; alias {root}/large; }}
  }}
}}\n",
        root = root.display()
    );
    let path = root.join("nginx.conf");
    fs::write(&path, config)?;
    host.spawn("nginx", &["nginx", "-e", "stderr", "-c", &path.display().to_string()])
}

fn dnsmasq(host: &Host, plan: &DnsPlan) -> Result<Process> {
    let mut args: Vec<String> =
        ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"]
            .into_iter()
            .chain(["--no-hosts", "--user=root", "--pid-file=", "--log-facility=-"])
            .map(str::to_owned)
            .collect();
    for (name, addresses) in &plan.names {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        args.push(format!("--host-record={name},{}", addresses.join(",")));
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    host.spawn("dnsmasq", &args)
}
