//! Makes the operating system look as desired, from whatever state it is in.
//!
//! The order is the promise: guard up, old things away, old sockets dead, settings, new things, names; on the way
//! to nothing the guard goes last. Undoing goes on past what fails, and reports the first failure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::os::desired::Desired;
use crate::os::dns;
use crate::os::error::OsError;
use crate::os::netlink::Netlink;
use crate::os::nft;
use crate::os::plan::{Current, Step, plan};
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

    /// Undoes what any earlier run left: for the time after a crash, and before the first config of a start. To go
    /// straight from a crash to a config, [`reconcile`](Self::reconcile) alone will do, and keeps the guard up.
    ///
    /// # Errors
    /// The first step that failed; all others were tried.
    pub async fn mend(options: &SystemOptions) -> Result<(), OsError> {
        Self::new(options.clone()).reconcile(&Desired::nothing()).await
    }

    /// Makes the system look as `desired`. The same again changes nothing. The TUN must be open unless nothing is
    /// desired.
    ///
    /// # Errors
    /// The first step that failed. On the way up the rest is left undone, with the guard standing; on the way to
    /// nothing the rest is done all the same.
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
            effort.take(netlink.carry_out(step, link).await)?;
        }
        Ok(())
    }

    /// Brings the kernel's settings and the record of them to where `desired` wants them. A crash at any point
    /// leaves a record that knows at least as much as was changed.
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
