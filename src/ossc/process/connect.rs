//! From settings to a bucket that can be asked: addresses, TLS, signer, and how the network is run.
//!
//! Called by the engine at its start and by the commands that ask OSS themselves. It sends nothing.

use crate::credentials;
use ossc_conf::{Config, IoDriver, Scheme, Settings};
use ossc_net::{DriverChoice, Error, Origin, Timeouts, Tls, Trust, VcpuOptions};
use ossc_sign::Credentials;
use std::net::SocketAddr;
use std::time::Duration;

/// Which certificates are trusted.
pub fn trust(settings: &Settings, config: &Config) -> Trust {
    Trust {
        ca_file: config.tls_ca_file.clone(),
        cert_file: settings.ssl_cert_file.clone(),
        cert_dir: settings.ssl_cert_dir.clone(),
    }
}

/// All addresses of the endpoint.
///
/// # Errors
/// In phase DNS.
pub fn addresses(settings: &Settings, config: &Config) -> Result<Vec<SocketAddr>, Error> {
    let host = settings.endpoint.connect_host(settings.location.bucket());
    ossc_net::resolve::resolve(&host, settings.endpoint.port(), config.resolve_timeout)
}

/// The bucket at these addresses; without a key requests go out unsigned.
///
/// # Errors
/// In phase TLS, for roots that cannot be used.
pub fn origin(
    settings: &Settings,
    config: &Config,
    addresses: Vec<SocketAddr>,
    key: Option<Credentials>,
) -> Result<Origin, Error> {
    let (endpoint, bucket) = (&settings.endpoint, settings.location.bucket());
    let secure = endpoint.scheme() == Scheme::Https;
    let tls = secure.then(|| Tls::new(&endpoint.connect_host(bucket), &trust(settings, config))).transpose()?;
    let signer = key.map(|key| credentials::signer(settings, key).into());
    let path_style = endpoint.is_path_style();
    Ok(Origin { path_style, tls, signer, ..Origin::new(addresses, &endpoint.host_header(bucket), bucket) })
}

/// More rings than cores make no sense; the connections asked for are kept.
pub fn options(settings: &Settings, config: &Config) -> VcpuOptions {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let vcpus = config.prefetch_vcpus.min(cores);
    let ms = |time: Duration| time.as_millis() as u64;
    VcpuOptions {
        vcpus,
        workers: (config.prefetch_vcpus * config.prefetch_workers).div_ceil(vcpus),
        driver: match settings.io {
            Some(IoDriver::Uring) => DriverChoice::Uring,
            Some(IoDriver::Epoll) => DriverChoice::Epoll,
            None => DriverChoice::Auto,
        },
        timeouts: Timeouts {
            connect_ms: ms(config.connect_timeout),
            response_ms: ms(config.response_timeout),
            stall_ms: ms(config.stall_timeout),
            least_bytes_per_sec: config.least_bytes_per_sec,
            idle_ms: ms(config.idle_connection),
            avoid_ms: ms(config.avoid_address),
        },
        ..VcpuOptions::default()
    }
}
