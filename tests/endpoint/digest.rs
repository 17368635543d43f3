//! ETag and CRC-64 of objects, computed once per content. Called by `list` and `object`, and by
//! a background thread that goes over the whole tree at start. Never hashes on a hit.

use crate::store::{Stamp, Store, Visit};
use crate::text::hex;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Largest object that counts as uploaded in one piece: ETag is its MD5, Type is Normal.
const NORMAL_BYTES_MAX: u64 = 16 << 20;
const READ_BYTES: usize = 1 << 20;

/// Hashes of one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hashes {
    /// CRC-64/XZ of the whole object.
    pub crc: u64,
    /// MD5, for Normal objects.
    md5: Option<[u8; 16]>,
}

type Slot = Arc<Mutex<Option<Hashes>>>;

/// Hashes by path, valid for one stamp each.
#[derive(Default)]
pub(crate) struct Digests {
    slots: Mutex<HashMap<PathBuf, (Stamp, Slot)>>,
}

/// `Normal` or `Multipart`, as listings and x-oss-object-type name it.
pub(crate) fn object_type(stamp: &Stamp) -> &'static str {
    if stamp.size <= NORMAL_BYTES_MAX { "Normal" } else { "Multipart" }
}

impl Digests {
    /// Hashes of the file at `path`, whose stamp is `stamp`. Several callers of one content wait
    /// for the one that computes.
    pub(crate) fn get(&self, path: &Path, stamp: &Stamp, file: &File) -> io::Result<Hashes> {
        let slot = self.slot(path, stamp);
        let mut known = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hashes) = *known {
            return Ok(hashes);
        }
        let hashes = compute(file, stamp)?;
        *known = Some(hashes);
        Ok(hashes)
    }

    /// The quoted ETag; opens and reads the file only for a Normal object seen the first time.
    pub(crate) fn etag(&self, path: &Path, stamp: &Stamp) -> io::Result<String> {
        if stamp.size > NORMAL_BYTES_MAX {
            return Ok(multipart_etag(stamp));
        }
        let known = *self.slot(path, stamp).lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(hashes) => Ok(hashes.etag(stamp)),
            None => Ok(self.get(path, stamp, &File::open(path)?)?.etag(stamp)),
        }
    }

    /// Goes over all objects of all buckets. Unreadable ones are reported on stderr: requests
    /// for them will fail the same way. Ends early when `stopped` says so.
    pub(crate) fn fill(&self, store: &Store, stopped: &dyn Fn() -> bool) -> io::Result<()> {
        let mut all = All { digests: self, stopped };
        for bucket in store.buckets()? {
            if let Some(folder) = store.bucket(&bucket) {
                store.walk(&folder, &mut all)?;
            }
        }
        Ok(())
    }

    fn slot(&self, path: &Path, stamp: &Stamp) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, slot)) = slots.get(path)
            && known == stamp
        {
            return slot.clone();
        }
        let slot = Slot::default();
        slots.insert(path.to_owned(), (*stamp, slot.clone()));
        slot
    }
}

impl Hashes {
    /// The quoted ETag of the content these hashes belong to.
    pub(crate) fn etag(&self, stamp: &Stamp) -> String {
        match self.md5 {
            Some(md5) => format!("\"{}\"", hex(&md5).to_ascii_uppercase()),
            None => multipart_etag(stamp),
        }
    }
}

struct All<'a> {
    digests: &'a Digests,
    stopped: &'a dyn Fn() -> bool,
}

impl Visit for All<'_> {
    fn enter(&mut self, _: &[u8]) -> bool {
        true
    }

    fn object(&mut self, _: &[u8], path: &Path, stamp: Stamp) -> ControlFlow<()> {
        if (self.stopped)() {
            return ControlFlow::Break(());
        }
        if let Err(e) = File::open(path).and_then(|file| self.digests.get(path, &stamp, &file)) {
            eprintln!("oss-endpoint: hashing {}: {e}", path.display());
        }
        ControlFlow::Continue(())
    }
}

/// "HEX-N" of a hash of the stamp: changes whenever the content is replaced, costs no reading.
fn multipart_etag(stamp: &Stamp) -> String {
    let text = format!("{} {} {} {} {}", stamp.dev, stamp.inode, stamp.size, stamp.mtime_ns, stamp.ctime_ns);
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let parts = stamp.size.div_ceil(NORMAL_BYTES_MAX);
    format!("\"{}-{parts}\"", hex(&hash.as_ref()[..16]).to_ascii_uppercase())
}

/// Reads the whole file; fails if it changed meanwhile, so that no wrong pair is remembered.
fn compute(file: &File, stamp: &Stamp) -> io::Result<Hashes> {
    let mut crc = Crc::new(CrcAlgorithm::Crc64Xz);
    let mut md5 = (stamp.size <= NORMAL_BYTES_MAX).then(md5::Context::new);
    let mut buffer = vec![0; READ_BYTES.min(stamp.size as usize + 1)];
    let mut at = 0;
    loop {
        let n = file.read_at(&mut buffer, at)?;
        if n == 0 {
            break;
        }
        crc.update(&buffer[..n]);
        if let Some(md5) = &mut md5 {
            md5.consume(&buffer[..n]);
        }
        at += n as u64;
    }
    if at != stamp.size || Stamp::of(&file.metadata()?) != *stamp {
        return Err(io::Error::other("the file changed while it was hashed"));
    }
    Ok(Hashes { crc: crc.finalize(), md5: md5.map(|m| m.finalize().0) })
}
