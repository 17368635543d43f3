//! Listening, the threads, and stopping. Called by the program and by tests. Never outlives its
//! `Endpoint` value: dropping it ends every connection.

use crate::auth::Verifier;
use crate::config::Config;
use crate::conn::{self, Ids, Shared};
use crate::digest::Digests;
use crate::fault::Faults;
use crate::keys::Keys;
use crate::link::Link;
use crate::log::RequestLog;
use crate::rate::Rate;
use crate::stop::Stop;
use crate::store::Store;
use rustls::ServerConfig;
use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A peer that sends no request, or takes no byte, for this long is cut off.
const IDLE: Duration = Duration::from_secs(300);
/// How long stopping waits for connection threads; they only finish one system call.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Open connections, to be shut down at the end.
#[derive(Default)]
struct Open {
    streams: Mutex<HashMap<u64, TcpStream>>,
    closed: Condvar,
}

/// A running endpoint.
pub struct Endpoint {
    shared: Arc<Shared>,
    open: Arc<Open>,
    addr: SocketAddr,
    tls: bool,
    threads: Vec<JoinHandle<()>>,
}

impl Endpoint {
    /// Binds, starts serving and returns. Fails if the root is no folder, the address is taken,
    /// the log cannot be opened or the fault rules cannot be read; the error names which.
    pub fn start(config: &Config) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            store: Store::new(&config.root, config.catalog.as_deref())?,
            digests: Digests::default(),
            verifier: Verifier {
                keys: keys(config)?,
                region: config.region.clone(),
                product: config.product.clone(),
                anonymous: config.anonymous,
                v1: config.v1,
            },
            faults: config.faults.as_deref().map(|p| named("fault rules", p, Faults::open)).transpose()?,
            log: config.log.as_deref().map(|p| named("log", p, RequestLog::open)).transpose()?,
            rate: config.rate_bytes_per_sec.map(|rate| Rate::in_turns(rate, config.turn_bytes)),
            stop: Stop::default(),
            first_byte_delay: config.first_byte_delay,
            clock_ahead_sec: config.clock_ahead_sec,
            now_fixed: config.now_fixed,
            ids: Ids::new(),
            busy: Default::default(),
        });
        let tls = config.tls.as_ref().map(|certificate| certificate.server()).transpose()?;
        if config.hash_first {
            hash_all(&shared);
        }
        let listener = TcpListener::bind(config.listen)
            .map_err(|e| io::Error::new(e.kind(), format!("binding {}: {e}", config.listen)))?;
        let addr = listener.local_addr()?;
        let open = Arc::new(Open::default());
        let mut threads = Vec::new();
        if !config.hash_first {
            let shared = shared.clone();
            threads.push(thread::Builder::new().name("hash".into()).spawn(move || hash_all(&shared))?);
        }
        let accepting = (shared.clone(), open.clone(), tls.clone());
        let accept = move || accept_all(&listener, &accepting.0, &accepting.1, accepting.2.as_ref());
        threads.push(thread::Builder::new().name("accept".into()).spawn(accept)?);
        Ok(Self { shared, open, addr, tls: tls.is_some(), threads })
    }

    /// The bound address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://ADDRESS:PORT`, or `https://` with a certificate.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.addr)
    }

    /// Ends all connections (their log lines are written) and returns when the threads are gone.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.stop.set();
        // Wakes accept; that it fails means the listener is gone already.
        let _ = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1));
        for thread in self.threads.drain(..) {
            // A panic of that thread has been reported on stderr already.
            let _ = thread.join();
        }
        let streams = self.open.lock();
        for stream in streams.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = self.open.closed.wait_timeout_while(streams, STOP_WAIT, |s| !s.is_empty());
    }
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a connection off the list when its thread ends, however it ends.
struct Entry<'a>(&'a Open, u64);

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0.lock().remove(&self.1) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.0.closed.notify_all();
    }
}

fn named<T>(what: &str, path: &Path, open: fn(&Path) -> io::Result<T>) -> io::Result<T> {
    open(path).map_err(|e| io::Error::new(e.kind(), format!("{what} {}: {e}", path.display())))
}

fn keys(config: &Config) -> io::Result<Keys> {
    let file = config.keys.as_deref();
    Keys::open(config.credentials.clone(), file).map_err(|e| {
        let path = file.unwrap_or(Path::new("")).display();
        io::Error::new(e.kind(), format!("keys {path}: {e}"))
    })
}

fn hash_all(shared: &Shared) {
    if let Err(e) = shared.digests.fill(&shared.store, &|| shared.stop.is_set()) {
        eprintln!("oss-endpoint: hashing the objects: {e}");
    }
}

fn accept_all(listener: &TcpListener, shared: &Arc<Shared>, open: &Arc<Open>, tls: Option<&Arc<ServerConfig>>) {
    let mut conn = 0;
    loop {
        let accepted = listener.accept();
        if shared.stop.is_set() {
            return;
        }
        conn += 1;
        let started = accepted.and_then(|(stream, _)| start_conn((stream, tls), conn, shared, open));
        if let Err(e) = started {
            eprintln!("oss-endpoint: connection {conn}: {e}");
            // Out of descriptors or threads: give others time to end.
            shared.stop.sleep(Duration::from_millis(10));
        }
    }
}

fn start_conn(
    (stream, tls): (TcpStream, Option<&Arc<ServerConfig>>),
    conn: u64,
    shared: &Arc<Shared>,
    open: &Arc<Open>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    open.lock().insert(conn, stream.try_clone()?);
    let link = Link::new(stream, tls)?;
    let (shared, registry) = (shared.clone(), open.clone());
    let spawned = thread::Builder::new().name(format!("conn-{conn}")).spawn(move || {
        let _entry = Entry(&registry, conn);
        conn::serve(&shared, &link, conn);
    });
    if spawned.is_err() {
        open.lock().remove(&conn);
    }
    spawned.map(|_| ())
}
