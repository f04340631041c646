//! The segment's names while a session is up: through systemd-resolved where it serves this
//! machine, else in resolv.conf.

use crate::os::error::OsError;
use crate::os::names::Names;
use crate::os::resolv_conf::ResolvConf;
use crate::os::resolved;

/// Has the machine use `names`.
pub(super) async fn hold(names: &Names, tun_name: &str, file: &ResolvConf) -> Result<(), OsError> {
    match !file.is_held() && resolved::serves(file.path()) {
        true => resolved::hold(names, tun_name).await,
        false => file.hold(names),
    }
}

/// Has the machine use what it used before. Right after a crash too.
pub(super) async fn release(
    tun_name: &str,
    has_link: bool,
    file: &ResolvConf,
) -> Result<(), OsError> {
    file.release()?;
    if has_link && resolved::serves(file.path()) {
        resolved::release(tun_name).await?;
    }
    Ok(())
}
