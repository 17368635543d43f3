//! Objects of the catalog over real loopback sockets: listed in their place, read as OSS would.

mod rig;

use oss_endpoint::{Config, Endpoint};
use rig::{Client, Rig, noise};

fn start(rig: &Rig, entries: &str) -> Endpoint {
    let catalog = rig.path("catalog.json");
    std::fs::write(&catalog, entries).unwrap();
    Endpoint::start(&Config { catalog: Some(catalog), ..rig.config() }).unwrap()
}

#[test]
fn odd_keys_stand_in_byte_order_and_have_their_content() {
    let rig = Rig::new();
    rig.put("m/b", b"tree");
    rig.put("z", b"last");
    std::fs::create_dir(rig.path("root/.content")).unwrap();
    std::fs::write(rig.path("root/.content/one"), b"virtual").unwrap();
    let file = r#""file": ".content/one""#;
    let endpoint = start(
        &rig,
        &format!(
            r#"[{{"bucket": "b", "key": "m/../x", {file}}}, {{"bucket": "b", "key_hex": "6d2f00ff", {file}}},
            {{"bucket": "b", "key": "m//c", {file}}}, {{"bucket": "b", "key": "zz", {file}}}, {{"bucket": "b", "key": "m", {file}}}]"#
        ),
    );
    let mut client = Client::to(endpoint.addr());
    let all = client.get("/b/?list-type=2&encoding-type=url", &[]);
    assert_eq!(all.elements("Key"), ["m", "m%2F%00%FF", "m%2F..%2Fx", "m%2F%2Fc", "m%2Fb", "z", "zz"]);
    let level = client.get("/b/?list-type=2&encoding-type=url&prefix=m%2F&delimiter=%2F", &[]);
    assert_eq!(level.elements("Key"), ["m%2F%00%FF", "m%2Fb"]);
    assert_eq!(level.elements("CommonPrefixes").len(), 2);
    for target in ["/b/m/../x", "/b/m/%00%FF", "/b/m//c", "/b/zz", "/b/m"] {
        assert_eq!(client.get(target, &[]).body, b"virtual", "{target}");
    }
    assert_eq!(client.get("/b/m/b", &[]).body, b"tree");
}

#[test]
fn links_are_listed_as_links_and_read_as_their_targets() {
    let (rig, bytes) = (Rig::new(), noise(5000));
    rig.put("real", &bytes);
    let endpoint = start(
        &rig,
        r#"[{"bucket": "b", "key": "link", "target": "real"}, {"bucket": "b", "key": "nowhere", "target": "gone"}]"#,
    );
    let mut client = Client::to(endpoint.addr());
    let list = client.get("/b/?list-type=2", &[]);
    assert_eq!(list.elements("Type"), ["Symlink", "Symlink", "Normal"]);
    assert_eq!(list.elements("Size"), ["0", "0", "5000"]);
    let (link, real) = (client.round_trip("HEAD", "/b/link", &[]), client.round_trip("HEAD", "/b/real", &[]));
    assert_eq!((link.header("ETag"), link.header("Content-Length")), (real.header("ETag"), Some("5000")));
    assert_eq!(link.header("x-oss-object-type"), Some("Symlink"));
    assert_ne!(list.elements("ETag")[0], list.elements("ETag")[2]);
    let part = client.get("/b/link", &[("Range", "bytes=10-19"), ("If-Match", real.header("ETag").unwrap())]);
    assert_eq!((part.status, part.body.as_slice()), (206, &bytes[10..20]));
    let gone = client.get("/b/nowhere", &[]);
    assert_eq!((gone.status, gone.element("Code").as_str()), (404, "SymlinkTargetNotExist"));
}

#[test]
fn archived_objects_refuse_get_until_they_are_restored() {
    let rig = Rig::new();
    rig.put("cold", b"x");
    rig.put("warm", b"y");
    let endpoint = start(
        &rig,
        r#"[{"bucket": "b", "key": "cold", "class": "ColdArchive"},
            {"bucket": "b", "key": "warm", "class": "Archive", "restore": "ongoing-request=\"false\", expiry-date=\"x\""}]"#,
    );
    let mut client = Client::to(endpoint.addr());
    let list = client.get("/b/?list-type=2", &[]);
    assert_eq!(list.elements("StorageClass"), ["ColdArchive", "Archive"]);
    assert!(list.element("RestoreInfo").contains("ongoing-request="));
    let cold = client.get("/b/cold", &[]);
    assert_eq!((cold.status, cold.element("Code").as_str()), (403, "InvalidObjectState"));
    assert_eq!(client.round_trip("HEAD", "/b/cold", &[]).header("x-oss-storage-class"), Some("ColdArchive"));
    assert_eq!(client.get("/b/warm", &[]).body, b"y");
}

#[test]
fn broken_catalogs_are_refused() {
    let rig = Rig::new();
    for (entries, why) in [
        ("[", "EOF"),
        (r#"[{"bucket": "b", "key": "k", "file": "nothing"}]"#, "entry 1: "),
        (r#"[{"bucket": "b", "key": "k", "key_hex": "00", "target": "t"}]"#, "either key or key_hex"),
        (r#"[{"bucket": "b", "key": "", "target": "t"}]"#, "the key is empty"),
    ] {
        let catalog = rig.path("catalog.json");
        std::fs::write(&catalog, entries).unwrap();
        let error = Endpoint::start(&Config { catalog: Some(catalog), ..rig.config() }).err().unwrap().to_string();
        assert!(error.contains(why), "{error}");
    }
}
