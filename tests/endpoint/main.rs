//! The `oss-endpoint` program: serves a folder tree as OSS buckets. Started by tests, the demo
//! and performance runs. Never daemonizes, never prints a secret.

use clap::Parser;
use oss_endpoint::{Certificate, Config, Credentials, Endpoint};
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Serve a folder tree as Alibaba Cloud OSS buckets (read-only, HTTP/1.1 or HTTPS, signatures checked).
///
/// Sub-folders of --root are buckets, file paths below them are keys; an empty file named
/// .folder-marker in a folder F is the object "F/". Files are read at request time and may change
/// while this runs (replace them by rename). Requests may be path style (/BUCKET/KEY, for IP addresses and localhost) or
/// virtual-hosted (BUCKET.host). The first line on stdout is the URL; SIGTERM or SIGINT ends it.
#[derive(Parser)]
#[command(name = "oss-endpoint", version)]
struct Args {
    /// Folder whose sub-folders are the buckets.
    #[arg(long, value_name = "DIR", required_unless_present = "make_cert")]
    root: Option<PathBuf>,
    /// Objects that the tree cannot express: odd keys, symbolic links, storage classes (see CATALOG.md).
    #[arg(long, value_name = "F.json")]
    catalog: Option<PathBuf>,
    /// Speak https with this certificate (PEM, leaf first).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Make ca.pem, cert.pem and key.pem for loopback names in this folder and end.
    #[arg(long, value_name = "DIR")]
    make_cert: Option<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Accepted access key id [env: OSS_ACCESS_KEY_ID].
    #[arg(long, value_name = "ID")]
    access_key_id: Option<String>,
    /// Its secret; prefer the environment, arguments are visible to others [env: OSS_ACCESS_KEY_SECRET].
    #[arg(long, value_name = "SECRET")]
    access_key_secret: Option<String>,
    /// Require this x-oss-security-token (temporary credentials).
    #[arg(long, value_name = "T")]
    security_token: Option<String>,
    /// Accept these keys too: a JSON array of {"AccessKeyId", "AccessKeySecret", "SecurityToken"?,
    /// "Expiration"? "2024-08-02T15:04:05Z"}, re-read when the file changes (replace it by rename).
    #[arg(long, value_name = "F.json")]
    keys: Option<PathBuf>,
    /// Accept V1 signatures too; without it they are refused as OSS does for new accounts.
    #[arg(long)]
    allow_v1: bool,
    /// Region that V4 signatures must name.
    #[arg(long, default_value = "cn-test")]
    region: String,
    /// Product that V4 signatures must name.
    #[arg(long, default_value = "oss")]
    product: String,
    /// Answer unsigned requests too.
    #[arg(long)]
    anonymous: bool,
    /// Write the URL to this file (by rename) once requests are served.
    #[arg(long, value_name = "F")]
    ready_file: Option<PathBuf>,
    /// Append one JSON line per finished request; a line may follow its answer by an instant.
    #[arg(long, value_name = "F")]
    log: Option<PathBuf>,
    /// Fault rules, a JSON array (see FAULTS.md), re-read when the file changes.
    #[arg(long, value_name = "F.json")]
    faults: Option<PathBuf>,
    /// Limit of body bytes per second over all connections.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate_bytes_per_sec: Option<u64>,
    /// With --rate-bytes-per-sec: so many bytes to one connection, then as many to the next.
    #[arg(long, value_name = "N", requires = "rate_bytes_per_sec", value_parser = clap::value_parser!(u64).range(1..))]
    turn_bytes: Option<u64>,
    /// Wait before the first byte of every answer, in milliseconds.
    #[arg(long, value_name = "N", default_value_t = 0)]
    first_byte_delay_ms: u64,
    /// Have a clock so far ahead of this machine's (negative: behind), in signatures and Date.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    clock_ahead_sec: i64,
    /// Compute the CRC-64 of all objects before serving, instead of in the background.
    #[arg(long)]
    hash_first: bool,
    /// Be killed when the parent process ends (only if stdin is not a terminal).
    #[arg(long)]
    exit_with_parent: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("oss-endpoint: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> io::Result<()> {
    if args.exit_with_parent && !io::stdin().is_terminal() {
        die_with_parent()?;
    }
    if let Some(folder) = &args.make_cert {
        return Certificate::make(folder).map(drop);
    }
    let ready_file = args.ready_file.clone();
    // Before any thread exists, so that all inherit the mask and the wait below gets the signal.
    let signals = block_signals()?;
    let endpoint = Endpoint::start(&config(args)?)?;
    let url = endpoint.url();
    // Whoever started this may have closed stdout; the ready file and serving do not depend on it.
    let _ = writeln!(io::stdout(), "{url}").and_then(|()| io::stdout().flush());
    if let Some(path) = ready_file {
        write_ready(&path, &url)
            .map_err(|e| io::Error::new(e.kind(), format!("ready file {}: {e}", path.display())))?;
    }
    wait_signal(&signals)?;
    endpoint.stop();
    Ok(())
}

fn config(args: Args) -> io::Result<Config> {
    let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let id = args.access_key_id.or_else(|| env("OSS_ACCESS_KEY_ID"));
    let secret = args.access_key_secret.or_else(|| env("OSS_ACCESS_KEY_SECRET"));
    let invalid = |message: &str| io::Error::new(io::ErrorKind::InvalidInput, message);
    let credentials = match (id, secret) {
        (Some(access_key_id), Some(access_key_secret)) => {
            Some(Credentials { access_key_id, access_key_secret, security_token: args.security_token })
        }
        (None, None) if args.anonymous || args.keys.is_some() => None,
        (None, None) => {
            return Err(invalid(
                "no one could read: give --access-key-id and --access-key-secret, --keys, or --anonymous",
            ));
        }
        _ => {
            return Err(invalid("--access-key-id and --access-key-secret go together"));
        }
    };
    let tls = args.tls_cert.zip(args.tls_key).map(|(chain, key)| Certificate { chain, key });
    let root = args.root.ok_or_else(|| invalid("--root is missing"))?;
    Ok(Config {
        tls,
        catalog: args.catalog,
        listen: args.listen,
        credentials,
        keys: args.keys,
        v1: args.allow_v1,
        region: args.region,
        product: args.product,
        anonymous: args.anonymous,
        log: args.log,
        faults: args.faults,
        rate_bytes_per_sec: args.rate_bytes_per_sec,
        turn_bytes: args.turn_bytes,
        first_byte_delay: Duration::from_millis(args.first_byte_delay_ms),
        clock_ahead_sec: args.clock_ahead_sec,
        hash_first: args.hash_first,
        ..Config::new(root)
    })
}

fn write_ready(path: &Path, url: &str) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}", std::process::id()));
    std::fs::write(&partial, url)?;
    std::fs::rename(&partial, path)
}

fn die_with_parent() -> io::Result<()> {
    // SAFETY: getppid has no preconditions.
    let parent = unsafe { libc::getppid() };
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // The parent may have ended between the two calls.
    // SAFETY: getppid has no preconditions.
    if unsafe { libc::getppid() } != parent {
        return Err(io::Error::other("the parent process ended"));
    }
    Ok(())
}

fn block_signals() -> io::Result<libc::sigset_t> {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initializes the set it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialized by sigemptyset just above.
    let mut set = unsafe { set.assume_init() };
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: `set` is an initialized set and the signal number is valid.
        unsafe { libc::sigaddset(&mut set, signal) };
    }
    // SAFETY: `set` is initialized; the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } {
        0 => Ok(set),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn wait_signal(set: &libc::sigset_t) -> io::Result<()> {
    let mut signal = 0;
    // SAFETY: both pointers are to live values of the right type.
    match unsafe { libc::sigwait(set, &mut signal) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}
