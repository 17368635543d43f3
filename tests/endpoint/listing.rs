//! Listings over real loopback sockets, compared with a flat model.

mod rig;

use rig::{Client, Got, Rig};
use std::fs;

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        if b == b'%' {
            let hex = [rest.next().unwrap(), rest.next().unwrap()];
            out.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).unwrap()
}

/// All pages of a listing: keys and common prefixes in the order of the answers.
fn pages(client: &mut Client, query: &str, keys_max: usize) -> (Vec<String>, Vec<String>) {
    let (mut keys, mut prefixes, mut token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let got = client.get(&format!("/b/?list-type=2&encoding-type=url&max-keys={keys_max}{query}{token}"), &[]);
        assert_eq!(got.status, 200, "{}", got.text());
        let contents = got.elements("Key").len();
        let common: Vec<String> = got
            .elements("CommonPrefixes")
            .iter()
            .map(|c| decode(&c.replace("<Prefix>", "").replace("</Prefix>", "")))
            .collect();
        assert_eq!(got.element("KeyCount"), (contents + common.len()).to_string());
        assert!(contents + common.len() <= keys_max);
        keys.extend(got.elements("Key").iter().map(|k| decode(k)));
        prefixes.extend(common);
        if got.element("IsTruncated") == "false" {
            assert!(got.elements("NextContinuationToken").is_empty());
            return (keys, prefixes);
        }
        assert_eq!(contents + common_count(&got), keys_max, "a truncated page is full");
        token = format!("&continuation-token={}", got.element("NextContinuationToken"));
    }
}

fn common_count(got: &Got) -> usize {
    got.elements("CommonPrefixes").len()
}

#[test]
fn listings_match_a_flat_model() {
    let rig = Rig::new();
    let mut all: Vec<String> =
        ["a", "a-b", "a.b/x", "a0", "b/1", "b/2", "b/c/1", "b/c/2", "b-/z", "b0/1", "q +%&<\u{1}é/模", "z/y/x/w", "Z"]
            .map(String::from)
            .into();
    for key in &all {
        rig.put(key, key.as_bytes());
    }
    rig.put("mark/.folder-marker", b"");
    rig.put("mark/x", b"");
    all.extend(["mark/".to_owned(), "mark/x".to_owned()]);
    fs::create_dir(rig.path("root/b/hollow")).unwrap();
    all.sort();
    let endpoint = rig.start();
    let mut client = Client::to(endpoint.addr());
    let encode = |t: &str| t.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
    for prefix in ["", "a", "a-", "b", "b/", "b/c", "b/c/", "mark/", "z/y", "zz", "q "] {
        for delimiter in ["", "/", "/c/", "-"] {
            for after in ["", "a", "b/1", "b/c", "mark/", "b/zz"] {
                let mut keys = Vec::new();
                let mut prefixes: Vec<String> = Vec::new();
                for key in all.iter().filter(|k| k.starts_with(prefix) && (after.is_empty() || k.as_str() > after)) {
                    match key[prefix.len()..].find(delimiter).filter(|_| !delimiter.is_empty()) {
                        Some(at) => prefixes.push(key[..prefix.len() + at + delimiter.len()].to_owned()),
                        None => keys.push(key.clone()),
                    }
                }
                prefixes.dedup();
                let query =
                    format!("&prefix={}&delimiter={}&start-after={}", encode(prefix), encode(delimiter), encode(after));
                for keys_max in [1, 2, 3, 1000] {
                    let got = pages(&mut client, &query, keys_max);
                    assert_eq!(got, (keys.clone(), prefixes.clone()), "{query} {keys_max}");
                }
            }
        }
    }
}

#[test]
fn listing_document() {
    let rig = Rig::new();
    for n in 0..101 {
        rig.put(&format!("d/{n:03}&"), b"abc");
    }
    let endpoint = rig.start();
    let mut client = Client::to(endpoint.addr());
    let got = client.get("/b/?list-type=2&prefix=d%2F&start-after=d%2F000", &[]);
    let text = got.text();
    assert!(text.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult>"), "{text}");
    for (name, value) in [
        ("Name", "b"),
        ("MaxKeys", "100"),
        ("IsTruncated", "false"),
        ("StartAfter", "d/000"),
        ("KeyCount", "100"),
        ("Key", "d/001&amp;"),
        ("ETag", "\"900150983CD24FB0D6963F7D28E17F72\""),
        ("Type", "Normal"),
        ("Size", "3"),
        ("StorageClass", "Standard"),
    ] {
        // d/000& sorts after d/000, so 101 keys follow.
        let value = match name {
            "IsTruncated" => "true",
            "Key" => "d/000&amp;",
            _ => value,
        };
        assert_eq!(got.element(name), value, "{name}");
    }
    let modified = got.element("LastModified");
    assert!(modified.len() == 24 && modified.ends_with(".000Z"), "{modified}");
    assert!(!text.contains("<Owner>"));
    assert!(client.get("/b/?list-type=2&fetch-owner=true", &[]).text().contains("<Owner><ID>"));
    let url = client.get("/b?list-type=2&encoding-type=url&prefix=d%2F&max-keys=1", &[]);
    assert_eq!((url.element("Key").as_str(), url.element("Prefix").as_str()), ("d%2F000%26", "d%2F"));
    rig.put("d/000&", b"longer");
    rig.put("a", b"");
    fs::remove_file(rig.path("root/b/d/001&")).unwrap();
    let now = client.get("/b/?list-type=2&max-keys=3", &[]);
    assert_eq!(now.elements("Key"), ["a", "d/000&amp;", "d/002&amp;"]);
    assert_eq!(now.elements("Size"), ["0", "6", "3"]);
}

#[test]
fn first_listing_pages() {
    let rig = Rig::new();
    ["a/1", "a/2", "b", "c"].iter().for_each(|k| rig.put(k, b""));
    let endpoint = rig.start();
    let mut client = Client::to(endpoint.addr());
    let one = client.get("/b/?delimiter=/&max-keys=1", &[]);
    assert_eq!((one.element("NextMarker").as_str(), one.elements("Key").len()), ("a/", 0));
    let two = client.get("/b/?delimiter=/&max-keys=1&marker=a%2F", &[]);
    assert_eq!((two.element("Key").as_str(), two.element("NextMarker").as_str()), ("b", "b"));
}
