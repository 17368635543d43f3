//! The program itself: arguments, ready file, signals, end with the parent.

mod rig;

use rig::{Client, Rig};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn program(rig: &Rig) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oss-endpoint"));
    command.arg("--root").arg(rig.path("root")).stdin(Stdio::null()).stdout(Stdio::piped());
    command.env_remove("OSS_ACCESS_KEY_ID").env_remove("OSS_ACCESS_KEY_SECRET");
    command
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn addr(url: &str) -> SocketAddr {
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

#[test]
fn ready_file_keys_and_sigterm() {
    let rig = Rig::new();
    rig.put("k", b"x");
    let mut child = program(&rig)
        .args(["--access-key-id", "ID", "--hash-first", "--log"])
        .arg(rig.path("log"))
        .arg("--ready-file")
        .arg(rig.path("ready"))
        .env("OSS_ACCESS_KEY_SECRET", "the-secret")
        .spawn()
        .unwrap();
    let url = first_line(&mut child);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !rig.path("ready").exists() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(fs::read_to_string(rig.path("ready")).unwrap().trim_end(), url);
    let mut client = Client::to(addr(&url));
    assert_eq!(client.get("/b/k", &[]).status, 403);
    rig.log(1);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(client.rest(), b"");
    assert!(!fs::read_to_string(rig.path("log")).unwrap().contains("the-secret"));
}

#[test]
fn refuses_to_start_with_a_reason() {
    let rig = Rig::new();
    let fails = |args: &[&str], reason: &str| {
        let output = program(&rig).args(args).stderr(Stdio::piped()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(reason), "{args:?}: {error}");
    };
    fails(&[], "--anonymous");
    fails(&["--access-key-id", "ID"], "go together");
    fails(&["--anonymous", "--faults", "/nonexistent/f"], "fault rules /nonexistent/f");
    fails(&["--anonymous", "--log", "/nonexistent/l"], "log /nonexistent/l");
    fails(&["--anonymous", "--listen", "192.0.2.1:1"], "binding 192.0.2.1:1");
    let help = program(&rig).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for flag in ["--root", "--faults", "--rate-bytes-per-sec", "--exit-with-parent", "SIGTERM"] {
        assert!(help.contains(flag), "{flag}");
    }
}

#[test]
fn ends_with_its_parent() {
    let rig = Rig::new();
    rig.put("k", b"x");
    // A shell that starts the endpoint, waits until it is killed, and is the endpoint's parent.
    let ready = rig.path("ready");
    let script = format!(
        "'{}' --root '{}' --anonymous --exit-with-parent --ready-file '{}' < /dev/null & wait",
        env!("CARGO_BIN_EXE_oss-endpoint"),
        rig.path("root").display(),
        ready.display()
    );
    let mut shell = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !ready.exists() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut client = Client::to(addr(fs::read_to_string(&ready).unwrap().trim_end()));
    assert_eq!(client.get("/b/k", &[]).body, b"x");
    shell.kill().unwrap();
    shell.wait().unwrap();
    assert_eq!(client.rest(), b"", "the connection ends with the endpoint");
}
