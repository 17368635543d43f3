//! The thread `ossc-names`: looks the endpoint's name up again when no known address can be reached.
//!
//! Run by the engine where the endpoint has a name. It asks resolvers and nothing else.

use ossc_net::Names;
use std::time::Duration;

/// Between two look-ups of the endpoint's name; resolvers keep answers for longer.
const RESOLVE_PAUSE: Duration = Duration::from_secs(2);

/// The thread, as long as the network lives: looks the name up again whenever no known address can be connected to: it may have moved.
pub fn run(mut names: Names, host: &str, port: u16, deadline: Duration) {
    while names.wait_unreachable() {
        match ossc_net::resolve::resolve(host, port, deadline) {
            Ok(addresses) if names.set_addresses(&addresses) => {
                tracing::info!(host, ?addresses, "the endpoint has other addresses now");
            }
            Ok(_) => tracing::debug!(host, "the endpoint still has the same addresses"),
            Err(error) => tracing::warn!("{error}"),
        }
        std::thread::sleep(RESOLVE_PAUSE);
    }
}
