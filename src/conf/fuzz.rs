//! What must hold for any text that a user sets: called with inputs of a fuzzer (tests/fuzz) and, in
//! the unit tests, with the corpus that is kept there. Not part of the product; each function
//! panics when its property is broken, and returns nothing.

use std::fmt;

use crate::{Config, Endpoint, Location};

/// OSS_ENDPOINT and OSS_PATH: what was understood is shown as a text that means the same.
pub fn url(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match Endpoint::parse(text) {
        Ok(endpoint) => {
            assert_eq!(Endpoint::parse(&endpoint.to_string()), Ok(endpoint.clone()), "{text:?}");
            let (host, header) = (endpoint.connect_host("bkt"), endpoint.host_header("bkt"));
            for name in [&host, &header] {
                assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
                assert!(!name.contains(['/', '@', '?', '#', '\\']), "{name:?}");
            }
            assert_ne!(endpoint.port(), 0);
            assert_eq!(endpoint.ip().is_some(), host.parse::<std::net::IpAddr>().is_ok(), "{host}");
            assert!(endpoint.is_path_style() || host.starts_with("bkt."), "{host}");
            assert!(endpoint.infer_region().is_none_or(|region| text.to_ascii_lowercase().contains(&region)));
        }
        Err(reason) => one_line(&reason),
    }
    match Location::parse(text) {
        Ok(location) => {
            let (bucket, prefix) = (location.bucket(), location.prefix());
            assert!(prefix.is_empty() || (prefix.ends_with('/') && !prefix.starts_with('/')), "{prefix:?}");
            assert!(text.starts_with(&format!("oss://{bucket}")) && text.contains(prefix.trim_end_matches('/')));
            assert_eq!(Location::parse(&location.to_string()), Ok(location), "{text:?}");
        }
        Err(reason) => one_line(&reason),
    }
}

/// The configuration file: what is refused or has no effect is said in one line.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match Config::parse(text) {
        Ok((config, warnings)) => {
            assert!(config.part_bytes.is_multiple_of(4096) && config.prefetch_vcpus > 0, "{config:?}");
            for output in [&config.log_path, &config.audit_path] {
                assert!(!matches!(output, crate::Output::File(path) if !path.is_absolute()), "{config:?}");
            }
            warnings.iter().for_each(|warning| one_line(warning));
        }
        Err(error) => one_line(&error),
    }
}

fn one_line(message: &dyn fmt::Display) {
    let text = message.to_string();
    assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
}

#[cfg(test)]
#[path = "../../tests/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
#[test]
fn kept_inputs() {
    replay::replay("url", url);
    replay::replay("config", config);
}
