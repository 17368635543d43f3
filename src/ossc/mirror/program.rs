//! Which large objects are programs and libraries: what the loader and the kernel open by themselves, past every hook,
//! so that an empty file in their place could not be run or loaded.
//!
//! Called by the mirror with the new objects of a listing. Names of data formats are believed; of the others the first
//! bytes are asked for, side by side, once per version. It changes nothing.

use crate::folder_files;
use crate::mirror::inspect::Step;
use crate::mirror::listing::tree::Level;
use crate::mirror::{Mirror, RENEWAL_MAX};
use crate::work::{Patience, Work};
use ossc_net::Query;
use ossc_net::list::ObjectEntry;
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// Endings of files that hold data: weights, tokenizers, tables, media, archives, texts. A program among them is run
/// by one that reads it.
const DATA: &[&str] = &[
    "7z",
    "arrow",
    "avi",
    "awq",
    "bin",
    "bz2",
    "ckpt",
    "csv",
    "dat",
    "data",
    "db",
    "faiss",
    "feather",
    "flac",
    "gguf",
    "ggml",
    "gz",
    "h5",
    "hdf5",
    "idx",
    "img",
    "index",
    "iso",
    "jpeg",
    "jpg",
    "json",
    "jsonl",
    "keras",
    "lance",
    "log",
    "lz4",
    "md",
    "mdb",
    "mlmodel",
    "mmap",
    "model",
    "mov",
    "mp3",
    "mp4",
    "msgpack",
    "npy",
    "npz",
    "onnx",
    "onnx_data",
    "ot",
    "parquet",
    "pb",
    "pdf",
    "pickle",
    "pkl",
    "pdparams",
    "png",
    "pt",
    "pth",
    "rar",
    "raw",
    "safetensors",
    "spm",
    "sqlite",
    "tar",
    "tfevents",
    "tflite",
    "tfrecord",
    "tgz",
    "tiff",
    "tiktoken",
    "tsv",
    "txt",
    "vocab",
    "wav",
    "webm",
    "webp",
    "weights",
    "xml",
    "xz",
    "yaml",
    "yml",
    "zip",
    "zst",
];

/// How programs begin: ELF, a script, and what is both a DOS program and a script (llamafile).
const BEGINNINGS: [&[u8]; 3] = [b"\x7fELF", b"#!", b"MZ"];
/// Length of the longest of them.
const BEGINNING_BYTES: u64 = 4;
/// Objects of one folder that are asked for, at most, and so many at a time.
const ASKED_MAX: usize = 512;
const AT_ONCE: usize = 64;

/// So many bytes of MODEL_DIR's disk are left to others when a program or library is written there.
const DISK_BYTES_LEFT: u64 = 256 << 20;

impl Mirror {
    /// No names, if that is known without asking OSS.
    pub(crate) fn no_programs(&self, level: &Level, steps: &HashMap<String, Step>) -> Option<HashSet<String>> {
        self.new_large(level, steps).all(|(name, _)| is_data(name)).then(HashSet::new)
    }

    fn new_large<'a>(
        &self,
        level: &'a Level,
        steps: &HashMap<String, Step>,
    ) -> impl Iterator<Item = (&'a str, &'a ObjectEntry)> {
        let is_new = |name: &String| {
            matches!(
                steps.get(name),
                Some(Step::Make | Step::Leftover(_) | Step::Adopt(_) | Step::Replace(_) | Step::Turn)
            )
        };
        let bytes_max = self.options.materialize_bytes_max;
        let is_large = move |object: &ObjectEntry| object.size > bytes_max && !object.needs_restore();
        level
            .objects
            .iter()
            .filter(move |(name, object)| is_new(name) && is_large(object))
            .map(|(name, object)| (name.as_str(), object))
    }

    /// Names of the new large objects that the loader or the kernel may open by themselves: they become real files,
    /// whatever their size, if the disk has room. `materializeTotal` does not count for them.
    pub(crate) fn programs(
        &self,
        folder: &OwnedFd,
        path: &str,
        level: &Level,
        steps: &HashMap<String, Step>,
    ) -> HashSet<String> {
        let until = Instant::now() + RENEWAL_MAX;
        let mut found = find(&self.work, self.new_large(level, steps), until);
        let mut room = folder_files::free_bytes(folder).unwrap_or(0).saturating_sub(DISK_BYTES_LEFT);
        found.retain(|name| {
            let size = level.objects.get(name).map_or(0, |object| object.size);
            let fits = size <= room;
            room -= if fits { size } else { 0 };
            if !fits {
                tracing::error!(
                    folder = path,
                    name,
                    size,
                    "no room on MODEL_DIR's disk for this program or library: it cannot be run or loaded from there"
                );
            }
            fits
        });
        found
    }
}

/// The names among these that are programs'. What cannot be asked for, or does not answer until then, is taken for data.
fn find<'a>(work: &Work, new: impl Iterator<Item = (&'a str, &'a ObjectEntry)>, until: Instant) -> HashSet<String> {
    let patience = Patience { attempts: 1, until: Some(until), outlasts: false };
    let unknown: Vec<_> = new.filter(|(name, _)| !is_data(name)).collect();
    if unknown.len() > ASKED_MAX {
        tracing::warn!(
            objects = unknown.len(),
            asked = ASKED_MAX,
            "too many large objects of unknown kinds: the others are taken for data"
        );
    }
    let mut found = HashSet::new();
    for some in unknown[..unknown.len().min(ASKED_MAX)].chunks(AT_ONCE) {
        let queries: Vec<Query> = some.iter().map(|(_, object)| beginning_of(object)).collect();
        for ((name, object), answer) in some.iter().zip(work.scheduling.call_all(&queries, patience)) {
            if let Ok(done) = &answer {
                work.audit.ended((&object.key, &object.etag), done);
            }
            match answer.and_then(|done| done.result.map(|_| done.body)) {
                Ok(body) if is_program(&body) => drop(found.insert(name.to_string())),
                Ok(_) => {}
                Err(error) => tracing::warn!(object = name, "taken for data, its beginning was not had: {error}"),
            }
        }
    }
    found
}

fn beginning_of(object: &ObjectEntry) -> Query {
    Query::Get {
        key: object.key.clone(),
        range: Some(0..BEGINNING_BYTES.min(object.size)),
        etag: Some(object.etag.clone()),
        size: object.size,
    }
}

fn is_data(name: &str) -> bool {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    ending.is_some_and(|ending| DATA.contains(&ending.as_str()))
}

fn is_program(bytes: &[u8]) -> bool {
    BEGINNINGS.iter().any(|beginning| bytes.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_data_are_not_asked_for() {
        for name in ["model-00001-of-00002.safetensors", "a.GGUF", "x.tar.gz", "pytorch_model.bin", "größe.npy"] {
            assert!(is_data(name), "{name}");
        }
        for name in
            ["model.so", "libx.so.1", "run.llamafile", "server", "a.sh", ".safetensors.so", "noext.", "main.exe"]
        {
            assert!(!is_data(name), "{name}");
        }
        assert!(DATA.iter().all(|ending| !ending.contains(|c: char| c.is_ascii_uppercase() || c == '.')));
    }

    #[test]
    fn beginnings() {
        for bytes in [b"\x7fELF".as_slice(), b"#!/b", b"MZqF", b"#!"] {
            assert!(is_program(bytes));
        }
        for bytes in [b"".as_slice(), b"GGUF", b"\x7fEL", b"#", b"PK\x03\x04"] {
            assert!(!is_program(bytes));
        }
        assert!(BEGINNINGS.iter().all(|beginning| beginning.len() as u64 <= BEGINNING_BYTES));
    }
}
