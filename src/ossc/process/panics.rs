//! A panic in any thread of the engine ends all of it, with a line in the log: what that thread was filling would never
//! come, and no other engine takes over from one that lives.
//!
//! Called once by the engine at its start.

use crate::journal;
use std::time::Duration;

/// The thread that writes the log has so long for the line: it may be the one that panics.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);

/// From now on a panic ends this process.
pub fn end_the_process() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let what = panic.to_string().replace('\n', " ");
        tracing::error!(
            thread = thread.name().unwrap_or_default(),
            "the engine ends by a mistake in it, and another one takes over: {what}; please report it"
        );
        journal::flush(WRITTEN_WITHIN);
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_panic_in_a_thread_ends_the_process() {
        if std::env::var_os("OSSC_TEST_PANICS").is_some() {
            end_the_process();
            let _ = std::thread::spawn(|| panic!("planted")).join();
            std::process::exit(0);
        }
        let test = "process::panics::tests::a_panic_in_a_thread_ends_the_process";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let status = again.args(["--exact", test]).env("OSSC_TEST_PANICS", "1").status().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
    }
}
