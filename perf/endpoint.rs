//! The project's own endpoint as a child process, serving one random object from a temporary folder. Used by
//! `compare`. Ends and removes only what it made itself.

use crate::error::{Error, Result, Tried};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time until it serves; it reads the whole object before that, perhaps from a cold disk.
const READY_MAX: Duration = Duration::from_secs(120);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(10);
const BUCKET: &str = "perf";
const KEY: &str = "object.bin";

/// A temporary folder with one bucket and one object; removed at the end.
pub struct Bucket {
    root: PathBuf,
}

impl Bucket {
    /// Writes `size` random bytes in a new folder inside `temp`.
    pub fn make(temp: &Path, size: u64) -> Result<Bucket> {
        let root = temp.join(format!("ossc-perf-{}", std::process::id()));
        fs::create_dir(&root).tried(|| format!("make {}", root.display()))?;
        let bucket = Bucket { root };
        let folder = bucket.root.join(BUCKET);
        fs::create_dir(&folder).tried(|| format!("make {}", folder.display()))?;
        let path = folder.join(KEY);
        write_random(&path, size).tried(|| format!("write {size} bytes to {}", path.display()))?;
        Ok(bucket)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        if let Err(os) = fs::remove_dir_all(&self.root) {
            eprintln!("ossc-perf: {} is left behind: {os}", self.root.display());
        }
    }
}

fn write_random(path: &Path, size: u64) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let mut rng = fastrand::Rng::new();
    let mut block = vec![0; 1 << 20];
    let mut left = size;
    while left > 0 {
        let now = left.min(block.len() as u64) as usize;
        rng.fill(&mut block[..now]);
        file.write_all(&block[..now])?;
        left -= now as u64;
    }
    Ok(())
}

/// The running endpoint; ended when dropped.
pub struct Endpoint {
    child: Child,
    url: String,
}

impl Endpoint {
    /// Starts `program` on `bucket` and waits until it serves.
    pub fn start(program: &Path, bucket: &Bucket) -> Result<Endpoint> {
        let ready = bucket.root.join("ready");
        let mut command = Command::new(program);
        command.arg("--root").arg(&bucket.root).arg("--ready-file").arg(&ready);
        command.args(["--anonymous", "--hash-first", "--exit-with-parent"]);
        // Credentials of the caller's shell are none of its business.
        command.env_remove("OSS_ACCESS_KEY_ID").env_remove("OSS_ACCESS_KEY_SECRET");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.tried(|| format!("start {}", program.display()))?;
        let mut endpoint = Endpoint { child, url: String::new() };
        endpoint.url = endpoint.wait(&ready)?;
        Ok(endpoint)
    }

    /// URL of the object.
    pub fn object(&self) -> String {
        format!("{}/{BUCKET}/{KEY}", self.url.trim_end_matches('/'))
    }

    fn wait(&mut self, ready: &Path) -> Result<String> {
        let begun = Instant::now();
        while begun.elapsed() < READY_MAX {
            if let Ok(url) = fs::read_to_string(ready) {
                return Ok(url.trim().into());
            }
            if let Some(status) = self.child.try_wait().tried(|| "wait for the endpoint".into())? {
                return Err(Error::Wrong(format!("the endpoint ended before it served: {status}")));
            }
            std::thread::sleep(LOOK);
        }
        Err(Error::Wrong(format!("the endpoint did not serve within {} s", READY_MAX.as_secs())))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // It holds nothing that a clean end would save.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `oss-endpoint` beside this program.
pub fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().tried(|| "find this program".into())?;
    let beside = own.with_file_name("oss-endpoint");
    if beside.is_file() {
        return Ok(beside);
    }
    Err(Error::Wrong(format!("{} is missing: build it (ci/build) or name it with --endpoint", beside.display())))
}
