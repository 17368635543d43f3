//! https: what the endpoint serves through TLS is what it serves without, and its certificates
//! are made once.

mod rig;

use oss_endpoint::{Certificate, Config, Endpoint};
use rig::{Rig, noise};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

type Secure = StreamOwned<ClientConnection, TcpStream>;

fn connect(rig: &Rig, endpoint: &Endpoint, name: &'static str) -> Secure {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(rig.path("ca.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let session = ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap();
    StreamOwned::new(session, TcpStream::connect(endpoint.addr()).unwrap())
}

fn start(rig: &Rig, rules: Option<&str>) -> Endpoint {
    let tls = Some(Certificate::make(rig.folder.path()).unwrap());
    let faults = rules.map(|rules| {
        std::fs::write(rig.path("faults"), rules).unwrap();
        rig.path("faults")
    });
    Endpoint::start(&Config { tls, faults, ..rig.config() }).unwrap()
}

/// Everything up to close_notify, or the error instead of it.
fn read_until_close(stream: &mut Secure, head: &str) -> Result<Vec<u8>, ErrorKind> {
    stream.write_all(format!("{head} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes).map_err(|e| e.kind())
}

#[test]
fn objects_come_through_tls_under_each_made_name() {
    let rig = Rig::new();
    let body = noise(3_000_001);
    rig.put("k", &body);
    let endpoint = start(&rig, None);
    assert!(endpoint.url().starts_with("https://127.0.0.1:"), "{}", endpoint.url());
    for name in ["127.0.0.1", "::1", "localhost", "b.localhost.test"] {
        let answer =
            read_until_close(&mut connect(&rig, &endpoint, name), "GET /b/k").expect("close_notify at the end");
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(&body), "{name}");
    }
    let lines = rig.log(4);
    assert!(lines.iter().all(|line| line["bytes_sent"] == 3_000_001 && line["cut"].is_null()), "{lines:?}");
}

#[test]
fn a_cut_is_a_stream_without_close_notify() {
    let rig = Rig::new();
    rig.put("k", &noise(100_000));
    let endpoint = start(&rig, Some(r#"[{"match": {"kind": "get"}, "do": {"cut_after": 70000}}]"#));
    let cut = read_until_close(&mut connect(&rig, &endpoint, "localhost"), "GET /b/k");
    assert_eq!(cut, Err(ErrorKind::UnexpectedEof));
    assert_eq!(rig.log(1)[0]["cut"], "fault");
}

#[test]
fn certificates_are_not_overwritten_and_bad_files_are_named() {
    let rig = Rig::new();
    let made = Certificate::make(rig.folder.path()).unwrap();
    assert_eq!(Certificate::make(rig.folder.path()).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let swapped = Certificate { chain: made.key.clone(), key: made.chain };
    let error = Endpoint::start(&Config { tls: Some(swapped), ..rig.config() }).err().expect("refused");
    assert!(error.to_string().contains(".pem"), "{error}");
}
