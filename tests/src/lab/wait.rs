//! Waiting on conditions with a deadline, never for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is asked. Short, for the lab's conditions are cheap and tests are many.
const STEP: Duration = Duration::from_millis(20);

/// Longer than any step takes, on a small machine that builds something else at the same time. Only a
/// failure waits so long.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Asks `condition` until it holds.
///
/// # Errors
/// It did not hold by the deadline; the message says what was waited for.
pub fn wait_for(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    within(what, deadline, || Ok(condition().then_some(())))
}

/// Asks until there is an answer. An error counts as "not yet", and the last one is shown when the
/// deadline passes.
///
/// # Errors
/// There was no answer by the deadline.
pub fn within<T>(
    what: &str,
    deadline: Duration,
    mut answer: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let began = Instant::now();
    let mut last = None;
    loop {
        match answer() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => {}
            Err(error) => last = Some(error),
        }
        if began.elapsed() >= deadline {
            let why = last.map(|error| format!(": {error:#}")).unwrap_or_default();
            bail!("{what}: not within {deadline:?}{why}");
        }
        std::thread::sleep(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_never_holds_ends_at_its_deadline_with_its_name() {
        let failed = wait_for("the moon", Duration::from_millis(50), || false).unwrap_err();
        assert!(failed.to_string().contains("the moon"), "{failed}");
    }
}
