//! Private network namespaces for tests, so that nothing a test does touches the machine's own
//! network.
//!
//! A namespace belongs to the thread that entered it; a test must not hand its work to another
//! thread.

use std::io;

/// Runs `test` on a thread of its own, in a new network namespace that has nothing but `lo`.
///
/// # Panics
/// Where the namespace cannot be made (the tests need root), and where `test` does.
pub(crate) fn in_private_network<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter_private_network().unwrap_or_else(|refused| {
                panic!(
                    "cannot enter a private network namespace ({refused}); run this test as root"
                )
            });
            test()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// As [`in_private_network`], for a test that awaits. Its runtime stays on the one thread.
pub(crate) fn in_private_network_async<F: Future>(test: impl FnOnce() -> F + Send) -> F::Output
where
    F::Output: Send,
{
    in_private_network(|| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test())
    })
}

/// Moves this thread into a new network namespace.
#[expect(unsafe_code, reason = "unshare(2) has no safe form in the workspace's crates")]
fn enter_private_network() -> io::Result<()> {
    // SAFETY: CLONE_NEWNET changes this thread's network namespace alone; it takes no pointer, and
    // shares or unshares no memory and no descriptors.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
