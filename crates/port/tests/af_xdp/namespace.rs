//! Network namespaces without names, so that nothing is left however a test ends.

use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::process::{Command, Output};

use super::{PEER, PORT};

/// A network namespace, which goes with the last thread in it and the last of these.
pub struct Namespace(File);

impl Namespace {
    pub fn new() -> Result<Self, String> {
        let made = std::thread::spawn(|| {
            // SAFETY: a plain call; it changes this short-lived thread only.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(std::io::Error::last_os_error());
            }
            current()
        });
        let file = made.join().unwrap().map_err(|error| format!("no namespace: {error}"))?;
        let namespace = Namespace(file);
        namespace.run(|| ip("link set lo up"));
        Ok(namespace)
    }

    /// Moves this thread into the namespace until the result is dropped.
    pub fn enter(&self) -> Inside {
        let before = current().unwrap();
        set(&self.0);
        Inside { before, thread: PhantomData }
    }

    pub fn run<T>(&self, body: impl FnOnce() -> T) -> T {
        let _inside = self.enter();
        body()
    }

    /// How `ip link set ... netns` can name it for as long as it lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// A stay in a namespace; see [`Namespace::enter`].
pub struct Inside {
    before: File,
    /// Belongs to its thread.
    thread: PhantomData<*const ()>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        set(&self.before);
    }
}

fn current() -> std::io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

fn set(namespace: &File) {
    // SAFETY: a plain call on a descriptor of a namespace; it changes this thread only.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "setns: {}", std::io::Error::last_os_error());
}

/// Runs a program of iproute2 or the like in this thread's namespace.
pub fn command(program: &str, arguments: &str) -> Output {
    let output = Command::new(program).args(arguments.split_whitespace()).output();
    output.unwrap_or_else(|error| panic!("{program} is needed: {error}"))
}

/// Runs `ip` in this thread's namespace.
pub fn ip(arguments: &str) {
    let output = command("ip", arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {text}");
}

/// Makes a fresh pair of [`PORT`] and [`PEER`], both up, in this thread's namespace.
pub fn veth_pair(queues: u32) {
    if command("ip", &format!("link show {PORT}")).status.success() {
        ip(&format!("link del {PORT}"));
    }
    let many = format!("numrxqueues {queues} numtxqueues {queues}");
    ip(&format!("link add {PORT} {many} type veth peer name {PEER} {many}"));
    ip(&format!("link set {PORT} up"));
    ip(&format!("link set {PEER} up"));
}
