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

/// Another machine in a test: a network namespace of its own, whose thread runs what it is handed.
pub(crate) struct Elsewhere {
    thread_id: i32,
    jobs: std::sync::mpsc::Sender<Box<dyn FnOnce() + Send>>,
}

impl Elsewhere {
    pub(crate) fn new() -> Self {
        let (jobs, todo) = std::sync::mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            in_private_network(move || {
                tell.send(rustix::thread::gettid().as_raw_nonzero().get()).expect("a listener");
                todo.into_iter().for_each(|job| job());
            });
        });
        Self { thread_id: told.recv().expect("a network namespace"), jobs }
    }

    /// What `ip link set … netns` takes for this machine.
    pub(crate) fn thread_id(&self) -> i32 {
        self.thread_id
    }

    /// Runs `job` there and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = std::sync::mpsc::channel();
        let job = Box::new(move || answer.send(job()).expect("a listener"));
        self.jobs.send(job).expect("the machine's thread");
        answered.recv().expect("an answer")
    }
}

/// Runs a shell script in this thread's namespace and answers what it printed.
///
/// # Panics
/// Where any line of it fails.
pub(crate) fn shell(script: &str) -> String {
    let output = std::process::Command::new("sh").args(["-ec", script]).output().expect("sh");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Waits until this thread's namespace has no such interface. A TUN whose last descriptor was closed
/// may linger: where another test forks, its child holds a copy until it runs its program.
///
/// # Panics
/// Where it stays.
pub(crate) fn wait_until_gone(interface: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let listed = || std::fs::read_to_string("/proc/thread-self/net/dev").expect("procfs");
    while listed().contains(interface) {
        assert!(std::time::Instant::now() < deadline, "{interface} stays");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
