//! Host name to addresses by the system's resolver, with a deadline. Called by the engine at the
//! start and when addresses go stale. Never called on a vcpu thread: getaddrinfo blocks.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::time::Duration;

use crate::error::{Error, FailureKind, Phase};

/// Addresses of `host` (a name or an IP literal, IPv6 without brackets), each once, in the
/// resolver's order.
///
/// getaddrinfo cannot be interrupted: after the deadline its thread is left behind and ends when
/// the resolver's own limits do.
///
/// # Errors
/// `FailureKind::Resolve` if the name has no address, `FailureKind::Timeout` after `deadline`, `FailureKind::Local` if
/// no thread can be made.
pub fn resolve(host: &str, port: u16, deadline: Duration) -> Result<Vec<SocketAddr>, Error> {
    let name = host.to_owned();
    within(host, deadline, move || (name.as_str(), port).to_socket_addrs().map(Iterator::collect))
}

/// Runs a blocking `lookup` of `host` on a thread of its own.
fn within(
    host: &str,
    deadline: Duration,
    lookup: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> Result<Vec<SocketAddr>, Error> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("ossc-resolve".into())
        // The receiver is gone after the deadline: nobody wants the answer any more.
        .spawn(move || drop(sender.send(lookup())))
        .map_err(|os| Error::from_os(Phase::Dns, "start the resolver thread", &os))?;
    match receiver.recv_timeout(deadline) {
        Ok(Ok(found)) => {
            let mut addresses: Vec<SocketAddr> = Vec::with_capacity(found.len());
            for address in found {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            if addresses.is_empty() {
                return Err(Error::new(FailureKind::Resolve, Phase::Dns, format!("{host} has no address")));
            }
            Ok(addresses)
        }
        Ok(Err(os)) => Err(Error::new(FailureKind::Resolve, Phase::Dns, format!("resolve {host}: {os}"))),
        Err(_) => Err(Error::new(
            FailureKind::Timeout,
            Phase::Dns,
            format!("no answer for {host} within {} ms", deadline.as_millis()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_resolve_to_themselves() {
        let v4 = resolve("127.0.0.1", 80, Duration::from_secs(5)).expect("v4");
        assert_eq!(v4, ["127.0.0.1:80".parse::<SocketAddr>().expect("address")]);
        let v6 = resolve("::1", 443, Duration::from_secs(5)).expect("v6");
        assert_eq!(v6, ["[::1]:443".parse::<SocketAddr>().expect("address")]);
    }

    #[test]
    fn a_name_that_cannot_exist_is_an_error_that_names_it() {
        let error = resolve("no such host.invalid", 80, Duration::from_secs(10)).expect_err("no address");
        assert_eq!(error.phase, Phase::Dns);
        assert!(error.message.contains("no such host.invalid"), "{error}");
    }

    #[test]
    fn an_expired_deadline_is_a_timeout() {
        let (release, held) = mpsc::channel::<()>();
        let slow = move || {
            // Ends with an error when the test drops the other end.
            assert!(held.recv().is_err());
            Ok(Vec::new())
        };
        let error = within("slow.example", Duration::from_millis(20), slow).expect_err("too late");
        drop(release);
        assert_eq!((error.kind, error.phase), (FailureKind::Timeout, Phase::Dns));
        assert!(error.message.contains("slow.example within 20 ms"), "{error}");
    }

    #[test]
    fn each_address_is_given_once_and_none_is_an_error() {
        let one: SocketAddr = "127.0.0.1:80".parse().expect("address");
        let twice = within("x", Duration::from_secs(5), move || Ok(vec![one, one]));
        assert_eq!(twice.expect("found"), [one]);
        let none = within("x", Duration::from_secs(5), || Ok(Vec::new()));
        assert_eq!(none.expect_err("none").kind, FailureKind::Resolve);
    }
}
