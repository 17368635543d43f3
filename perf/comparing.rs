//! Runs `ossc-perf` from outside: `compare` with a small object over loopback, `load` on the files it made, and all
//! that receives by https.
//! Builds the endpoint beside the program first, since cargo does not build another crate's program for a test.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Two parts and an odd tail.
const SIZE: u64 = (16 << 20) + 12_345;

struct Folder(PathBuf);

impl Folder {
    fn make(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ossc-perf-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("temporary folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn perf(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ossc-perf")).args(arguments).output().expect("ossc-perf runs")
}

/// The endpoint, built with this test's own profile into its own folder.
fn endpoint() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_ossc-perf")).parent().expect("a folder");
    let target = beside.parent().expect("a target folder");
    let profile = match beside.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(other) => other,
        None => panic!("no profile in {beside:?}"),
    };
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "-p", "oss-endpoint", "--manifest-path", manifest, "--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .status()
        .expect("cargo runs");
    assert!(status.success());
    beside.join("oss-endpoint")
}

#[test]
fn compare_measures_every_variant_and_proves_the_bytes() {
    assert!(endpoint().is_file());
    let folder = Folder::make("comparing");
    let out = folder.0.join("lines");
    let (size, temp) = (SIZE.to_string(), folder.0.to_str().expect("UTF-8"));
    let run = ["compare", "--size", &size, "--rounds", "2", "--connections", "2", "--temp", temp, "--out"];
    let output = perf(&[&run[..], &[out.to_str().expect("UTF-8")]].concat());
    let (table, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");

    let text = std::fs::read_to_string(&out).expect("lines");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |record: &str| lines.iter().filter(|line| line["record"] == record).collect::<Vec<_>>();
    let (runs, summaries) = (of("run"), of("summary"));
    let left_out = said.matches("left out").count();
    assert!(left_out > 0 || summaries.len() == 25, "{table}");
    assert_eq!((runs.len(), runs.len() + summaries.len()), (2 * summaries.len(), lines.len()));
    for run in &runs {
        let figures = &run["figures"];
        let name = figures["name"].as_str().expect("a name");
        assert_eq!(figures["bytes"], SIZE, "{name}");
        assert!(figures["wall_secs"].as_f64() > Some(0.0) && figures["cpu_secs_per_gb"].as_f64() > Some(0.0), "{run}");
        let proof = figures["proof"].as_str();
        if run["round"] == 0 && !name.ends_with("scratch") {
            assert_eq!(proof, Some("crc64 of the memory ok"), "{name}");
        } else if name.contains(" crc ") {
            assert_eq!(proof, Some("crc64 of the parts ok"), "{name}");
        }
    }
    for must in ["floor scratch", "floor memfd", "engine epoll crc memfd splice", "engine epoll no-crc scratch"] {
        assert!(table.contains(&format!("| {must} |")), "{must}: {table}");
    }
    let left: Vec<_> = folder.0.read_dir().expect("list").map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(left, ["lines"], "the object's folder is removed");
}

/// An endpoint by https that ends with its owner.
struct Secure(Child);

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves `root` with a certificate in `root/tls`; its URL.
fn serve_secure(program: &Path, root: &Path) -> (Secure, String) {
    let (tls, ready) = (root.join("tls"), root.join("ready"));
    std::fs::create_dir(&tls).expect("folder");
    assert!(Command::new(program).arg("--make-cert").arg(&tls).status().expect("runs").success());
    let mut command = Command::new(program);
    command.args(["--anonymous", "--hash-first", "--exit-with-parent", "--root"]).arg(root.join("www"));
    command.arg("--tls-cert").arg(tls.join("cert.pem")).arg("--tls-key").arg(tls.join("key.pem"));
    command.arg("--ready-file").arg(&ready).stdin(Stdio::null()).stdout(Stdio::null());
    let endpoint = Secure(command.spawn().expect("starts"));
    let begun = Instant::now();
    while !ready.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not serve");
        std::thread::sleep(Duration::from_millis(10));
    }
    let url = std::fs::read_to_string(&ready).expect("URL");
    (endpoint, url.trim().trim_end_matches('/').to_owned())
}

#[test]
fn https_brings_the_same_bytes_whatever_receives_them() {
    let folder = Folder::make("https");
    let bucket = folder.0.join("www/perf");
    std::fs::create_dir_all(&bucket).expect("bucket");
    let object: Vec<u8> = (0..SIZE).map(|at| (at * 7 + at / 251 + at / 65_537) as u8).collect();
    std::fs::write(bucket.join("object"), object).expect("object");
    let (_endpoint, base) = serve_secure(&endpoint(), &folder.0);
    let (url, size, ca) = (format!("{base}/perf/object"), SIZE.to_string(), folder.0.join("tls/ca.pem"));
    let from = ["--url", &url, "--size", &size, "--ca", ca.to_str().expect("UTF-8"), "--connections", "2"];
    for (ways, name) in [
        (&["floor-tls"][..], "floor-tls memfd"),
        (&["floor-tls", "--wait", "threads", "--input", "65536"], "floor-tls memfd"),
        (&["floor-tls", "--api", "own"], "floor-tls own records memfd"),
        (&["floor-tls", "--api", "own", "--wait", "threads", "--input", "524288"], "floor-tls own records memfd"),
        (&["engine", "--driver", "epoll"], "engine epoll no-crc memfd https"),
    ] {
        let output = perf(&[ways, &from, &["--json", "--verify", "--memory", "memfd"]].concat());
        assert!(output.status.success(), "{ways:?}: {}", String::from_utf8_lossy(&output.stderr));
        let figures: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((figures["name"].as_str(), figures["bytes"].as_u64()), (Some(name), Some(SIZE)));
        assert_eq!(figures["proof"], "crc64 of the memory ok", "{name}");
    }
    let output = perf(&[&["floor"][..], &from].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("by http only"), "{said}");
    // Another CA than the one that the certificate is from.
    let other = folder.0.join("other");
    std::fs::create_dir(&other).expect("folder");
    assert!(Command::new(endpoint()).arg("--make-cert").arg(&other).status().expect("runs").success());
    let ca = other.join("ca.pem");
    for way in ["floor-tls", "engine"] {
        let output = perf(&[way, "--url", &url, "--size", &size, "--ca", ca.to_str().expect("UTF-8")]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("TLS"), "{way}: {said}");
    }
}

#[test]
fn load_prints_one_sum_for_all_patterns_and_refuses_nothing_at_all() {
    let folder = Folder::make("loading");
    let file = folder.0.join("weights");
    std::fs::write(&file, (0..1_000_003u32).map(|i| (i % 251) as u8).collect::<Vec<_>>()).expect("write");
    let path = file.to_str().expect("UTF-8");
    let mut proofs = Vec::new();
    for pattern in ["mmap", "read", "pread"] {
        let output = perf(&["load", "--json", "--threads", "2", "--block", "65536", "--pattern", pattern, path]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let figures: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(figures["bytes"], 1_000_003);
        proofs.push(figures["proof"].clone());
    }
    assert!(proofs[0].as_str().is_some_and(|proof| proof.starts_with("sum ")));
    assert!(proofs.iter().all(|proof| *proof == proofs[0]), "{proofs:?}");

    std::fs::write(&file, "").expect("write");
    let output = perf(&["load", path]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("0 bytes"));
}

#[test]
fn a_refused_connection_is_named() {
    let output = perf(&["floor", "--url", "http://127.0.0.1:1/b/k", "--size", "10"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("connect to 127.0.0.1:1"), "{said}");
}
