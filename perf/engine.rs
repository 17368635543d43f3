//! The engine's receive alone: its vcpu threads, connections and drivers pull the same parts into the same
//! memory as `floor`. Compared with by `compare`. Retries nothing: a run with a failure has no figure.

use crate::error::{Error, Result};
use crate::figures::Figures;
use crate::floor::prove;
use crate::memory::MemoryKind;
use crate::meter::Meter;
use crate::space::Space;
use crate::target::{Target, Wanted};
use ossc_net::error::{FailureKind as Failure, Phase};
use ossc_net::{
    DriverChoice, Fetch, Finished, Origin, Pull, Query, Response, Sink, Source, Tls, Trust, VcpuOptions, Vcpus,
};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a worker without a place waits before it asks again. Places are as many as workers, so it is rare.
const PLACE_WAIT: Duration = Duration::from_millis(1);

/// Which way to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Driver {
    Uring,
    Epoll,
}

impl Driver {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Uring => "uring",
            Driver::Epoll => "epoll",
        }
    }

    fn choice(self) -> DriverChoice {
        match self {
            Driver::Uring => DriverChoice::Uring,
            Driver::Epoll => DriverChoice::Epoll,
        }
    }
}

/// Arguments of `engine`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    wanted: Wanted,
    /// Driver.
    #[arg(long, value_enum, default_value_t = Driver::Uring)]
    driver: Driver,
    /// Threads; the connections are divided among them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    vcpus: u16,
    /// Splice the bodies into the memory file, as the product does with plain HTTP.
    #[arg(long)]
    splice: bool,
    /// Compute the CRC-64 of every part as it arrives and compare their fold with the origin's.
    #[arg(long)]
    crc: bool,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let wanted = &args.wanted;
    if !wanted.connections.is_multiple_of(args.vcpus) {
        return Err(Error::Wrong(format!(
            "{} connections cannot be divided among {} vcpus",
            wanted.connections, args.vcpus
        )));
    }
    let space = Space::make(wanted)?;
    let target = wanted.target()?;
    let tls = target.secure.then(|| tls(wanted, &target)).transpose()?;
    let download = Arc::new(Download::new(args, &target, space));
    let source: Arc<dyn Source> = Arc::<Download>::clone(&download);
    let meter = Meter::start()?;
    let vcpus = Vcpus::start(Arc::new(origin(&target, tls)), source, options(args))?;
    let ended = download.wait();
    let used = meter.stop()?;
    vcpus.stop();
    let received = ended?;
    let crc = if args.crc { Some(received.compare()?) } else { None };
    let proof = prove(wanted, &download.space, received.crc64_object)?.or(crc);
    let https = if target.secure { " https" } else { "" };
    let name = format!("{}{https}", name(args.driver, args.crc, wanted.memory, args.splice));
    Figures::new(name, wanted.size, used, proof)?.print(wanted.json)
}

/// How a variant is called in tables and JSON.
pub fn name(driver: Driver, crc: bool, memory: MemoryKind, splice: bool) -> String {
    let (crc, splice) = (if crc { "crc" } else { "no-crc" }, if splice { " splice" } else { "" });
    format!("engine {} {crc} {}{splice}", driver.name(), memory.name())
}

/// Whether the driver can be had here: starts and stops a vcpu without work.
pub fn probe(driver: Driver) -> Result<()> {
    struct Idle;
    impl Source for Idle {
        fn pull(&self, _: Instant) -> Pull {
            Pull::Until(None)
        }
        fn finished(&self, _: Finished) {}
    }
    let [authority, host, bucket, key] = [const { String::new() }; 4];
    let nowhere = Target { addresses: Vec::new(), authority, host, bucket, key, secure: false };
    let options = VcpuOptions { vcpus: 1, workers: 1, driver: driver.choice(), ..VcpuOptions::default() };
    Vcpus::start(Arc::new(origin(&nowhere, None)), Arc::new(Idle), options)?.stop();
    Ok(())
}

/// The product's TLS, trusting what `wanted` says.
fn tls(wanted: &Wanted, target: &Target) -> Result<Tls> {
    Ok(Tls::new(&target.host, &Trust { cert_file: wanted.ca.clone(), ..Trust::default() })?)
}

fn origin(target: &Target, tls: Option<Tls>) -> Origin {
    let user_agent = concat!("ossc-perf/", env!("CARGO_PKG_VERSION")).into();
    let plain = Origin::new(target.addresses.clone(), &target.authority, &target.bucket);
    Origin { path_style: true, tls, user_agent, ..plain }
}

fn options(args: &Args) -> VcpuOptions {
    let vcpus = usize::from(args.vcpus);
    let workers = usize::from(args.wanted.connections) / vcpus;
    VcpuOptions { vcpus, workers, driver: args.driver.choice(), ..VcpuOptions::default() }
}

/// The one object as a source of work for the vcpus.
struct Download {
    space: Space,
    key: String,
    size: u64,
    parts: Vec<std::ops::Range<u64>>,
    crc: bool,
    splice: bool,
    state: Mutex<State>,
    ended: Condvar,
}

struct State {
    next: usize,
    left: usize,
    /// Scratch places that nobody receives into.
    places: Vec<usize>,
    /// Place of each part under way.
    used: Vec<usize>,
    crc64_parts: Vec<u64>,
    crc64_object: Option<u64>,
    failure: Option<Error>,
}

/// What a complete download knows.
struct Received {
    /// Fold of the parts, if they were computed.
    crc64_parts: Option<u64>,
    /// As the origin says it.
    crc64_object: Option<u64>,
}

impl Received {
    fn compare(&self) -> Result<String> {
        match (self.crc64_parts, self.crc64_object) {
            (Some(found), Some(expected)) if found == expected => Ok("crc64 of the parts ok".into()),
            (Some(_), None) => Ok("crc64 computed, but the origin sends none to compare with".into()),
            (found, expected) => {
                Err(Error::Wrong(format!("the parts have CRC-64 {found:?}, the origin says {expected:?}")))
            }
        }
    }
}

impl Download {
    fn new(args: &Args, target: &Target, space: Space) -> Download {
        let wanted = &args.wanted;
        let parts: Vec<_> = (0..wanted.parts()).map(|index| wanted.part(index)).collect();
        let state = State {
            next: 0,
            left: parts.len(),
            places: (0..usize::from(wanted.connections)).collect(),
            used: vec![0; parts.len()],
            crc64_parts: vec![0; parts.len()],
            crc64_object: None,
            failure: None,
        };
        let (key, size, crc) = (target.key.clone(), wanted.size, args.crc);
        Download { space, key, size, parts, crc, splice: args.splice, state: Mutex::new(state), ended: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    fn wait(&self) -> Result<Received> {
        let running = |state: &mut State| state.left > 0 && state.failure.is_none();
        let mut state = self.ended.wait_while(self.state(), running).expect("no holder of the lock panics");
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        let parts = state.crc64_parts.iter().zip(&self.parts);
        let fold = parts.fold(ossc_net::crc::of(&[]), |whole, (part, range)| {
            ossc_net::crc::combine(whole, *part, range.end - range.start)
        });
        Ok(Received { crc64_parts: self.crc.then_some(fold), crc64_object: state.crc64_object })
    }

    fn fail(&self, failure: Error) {
        let mut state = self.state();
        state.next = self.parts.len();
        state.failure.get_or_insert(failure);
        self.ended.notify_one();
    }

    /// The next part and its place.
    fn next_part(&self, now: Instant) -> std::result::Result<(usize, usize), Option<Instant>> {
        let mut state = self.state();
        if state.next == self.parts.len() {
            return Err(None);
        }
        let Some(place) = state.places.pop() else {
            return Err(Some(now + PLACE_WAIT));
        };
        let index = state.next;
        state.next += 1;
        state.used[index] = place;
        Ok((index, place))
    }

    fn finish_part(&self, index: usize, response: &Response) {
        self.space.settle(&self.parts[index]);
        let mut state = self.state();
        let place = state.used[index];
        state.places.push(place);
        state.crc64_parts[index] = response.crc64_body.unwrap_or(0);
        state.crc64_object = response.crc64_object.or(state.crc64_object);
        state.left -= 1;
        if state.left == 0 {
            self.ended.notify_one();
        }
    }
}

impl Source for Download {
    fn pull(&self, now: Instant) -> Pull {
        let (index, slot) = match self.next_part(now) {
            Ok(taken) => taken,
            Err(later) => return Pull::Until(later),
        };
        let range = self.parts[index].clone();
        // The part's memory is written by this fetch alone and stays until the vcpus are stopped: the space is
        // behind the same Arc as this source.
        let at = self.space.address(slot, &range);
        Pull::Fetch(Fetch {
            token: index as u64,
            sink: Sink::Memory {
                at,
                len: (range.end - range.start) as usize,
                pages: self.space.pages(&range, self.splice),
            },
            query: Query::Get { key: self.key.clone(), range: Some(range), etag: None, size: self.size },
            crc: self.crc,
            urgent: false,
        })
    }

    fn make_present(
        &self,
        token: u64,
        _filled: usize,
        bytes: Range<usize>,
    ) -> std::result::Result<(), ossc_net::Error> {
        let start = self.parts[token as usize].start;
        let made = self.space.make_present(&(start + bytes.start as u64..start + bytes.end as u64));
        made.map_err(|error| ossc_net::Error::new(Failure::Memory, Phase::Body, error.to_string()))
    }

    fn finished(&self, done: Finished) {
        match done.result {
            Ok(response) => self.finish_part(done.token as usize, &response),
            Err(error) => self.fail(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crcs_are_compared_not_assumed() {
        let received = |parts, object| Received { crc64_parts: parts, crc64_object: object }.compare();
        assert_eq!(received(Some(1), Some(1)).unwrap(), "crc64 of the parts ok");
        assert!(received(Some(1), Some(2)).is_err());
        assert!(received(None, Some(2)).is_err());
        assert!(received(Some(1), None).unwrap().contains("sends none"));
    }

    #[test]
    fn epoll_can_always_be_had() {
        probe(Driver::Epoll).unwrap();
    }
}
