//! Test only: the signer against golden vectors (vectors/README.md): three official SDKs agree on
//! those of open.json, and anchors.json holds values published in a unit test of one of them.

use serde_json::Value;

use crate::date::parse_utc;
use crate::{Credentials, Request, Scope, Secret, Signed, Signer, V1, V4, percent_encode, query_string};

const OPEN: &str = include_str!("vectors/open.json");
const ANCHORS: &str = include_str!("vectors/anchors.json");

/// One case, owned; `tamper` lets the control tests change exactly one thing.
#[derive(Clone)]
struct Case {
    name: String,
    method: String,
    bucket: Option<String>,
    key: Option<String>,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    additional: Vec<String>,
    secret: String,
    json: Value,
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    let object = value.as_object().expect("an object");
    object.iter().map(|(name, value)| (name.clone(), text(value).expect("a text"))).collect()
}

fn percent_decode(encoded: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = encoded.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, skipped) = match first {
            b'%' => {
                let hex = std::str::from_utf8(&tail[..2]).expect("two hex digits");
                (u8::from_str_radix(hex, 16).expect("two hex digits"), 2)
            }
            other => (*other, 0),
        };
        bytes.push(byte);
        rest = &tail[skipped..];
    }
    String::from_utf8(bytes).expect("UTF-8")
}

fn raw_pairs(raw_query: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(name), percent_decode(value))
    };
    raw_query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect()
}

impl Case {
    fn new(json: &Value) -> Self {
        let query = match json["raw_query"].as_str() {
            Some(raw) => raw_pairs(raw),
            None => pairs(&json["query"]),
        };
        let additional = json["additional_headers"].as_array().expect("an array");
        Self {
            name: text(&json["name"]).expect("name"),
            method: text(&json["method"]).expect("method"),
            bucket: text(&json["bucket"]),
            key: text(&json["key"]),
            query,
            headers: pairs(&json["headers"]),
            additional: additional.iter().map(|name| text(name).expect("a text")).collect(),
            secret: text(&json["access_key_secret"]).expect("secret"),
            json: json.clone(),
        }
    }

    fn query(&self) -> Vec<(&str, &str)> {
        self.query.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect()
    }

    fn sign(&self) -> Signed {
        let credentials = Credentials {
            access_key_id: text(&self.json["access_key_id"]).expect("id"),
            access_key_secret: Secret::new(self.secret.clone()),
            security_token: text(&self.json["security_token"]).map(Secret::new),
        };
        let scope = Scope {
            region: text(&self.json["region"]).expect("region"),
            product: text(&self.json["product"]).expect("product"),
        };
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let additional: Vec<&str> = self.additional.iter().map(String::as_str).collect();
        let request = Request {
            method: &self.method,
            bucket: self.bucket.as_deref(),
            key: self.key.as_deref(),
            query: &self.query(),
            headers: &headers,
            additional_headers: &additional,
        };
        let secs = parse_utc(self.json["date_iso"].as_str().expect("date")).expect("a date");
        let signer = match self.json["sig"].as_str() {
            Some("v1") => Signer::V1(V1::new(credentials)),
            Some("v4") => Signer::V4(V4::new(credentials, scope)),
            other => panic!("{}: unknown signature {other:?}", self.name),
        };
        signer.sign(&request, secs)
    }

    fn expect(&self, field: &str) -> &str {
        self.json["expect"][field].as_str().unwrap_or_else(|| panic!("{}: {field}", self.name))
    }

    /// The path of the URL as a client of this address style writes it.
    fn path(&self) -> String {
        let mut path = "/".to_owned();
        if self.json["address_style"] == "path" {
            path += &format!("{}/", self.bucket.as_deref().expect("a bucket"));
        }
        path + &percent_encode(self.key.as_deref().unwrap_or_default().as_bytes(), true)
    }
}

fn cases(file: &str) -> Vec<Case> {
    let all: Vec<Value> = serde_json::from_str(file).expect("vectors are JSON");
    all.iter().map(Case::new).collect()
}

/// How many cases are V1 and how many V4.
fn count(cases: &[Case]) -> (usize, usize) {
    let of = |sig: &str| cases.iter().filter(|case| case.json["sig"] == sig).count();
    (of("v1"), of("v4"))
}

fn header<'a>(signed: &'a Signed, name: &str) -> Option<&'a str> {
    signed.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

/// The vectors' query is a JSON object (order is lost) and writes empty values as `name=`, so
/// both sides are compared as sorted pairs, and `name=` is read as `name`.
fn sorted_query(query: &str) -> Vec<&str> {
    let mut pairs: Vec<&str> = query.split('&').map(|pair| pair.strip_suffix('=').unwrap_or(pair)).collect();
    pairs.sort_unstable();
    pairs
}

#[test]
fn open_vectors_agree_in_every_text() {
    let cases = cases(OPEN);
    for case in &cases {
        let (name, signed) = (&case.name, case.sign());
        assert_eq!(signed.canonical_request.as_deref(), case.json["expect"]["canonical_request"].as_str(), "{name}");
        assert_eq!(signed.string_to_sign, case.expect("string_to_sign"), "{name}");
        assert_eq!(signed.signature, case.expect("signature"), "{name}");
        assert_eq!(header(&signed, "Authorization"), Some(case.expect("authorization")), "{name}");
        for (wire, value) in pairs(&case.json["expect"]["wire_headers"]) {
            let callers = case.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(&wire));
            let sent = header(&signed, &wire).or(callers.map(|(_, v)| v.as_str()));
            assert_eq!(sent, Some(value.as_str()), "{name}: {wire}");
        }
    }
    println!("open.json: {:?} V1 and V4 cases", count(&cases));
    assert_eq!(count(&cases), (42, 43), "V1 and V4 cases in open.json");
}

#[test]
fn open_vectors_agree_in_path_and_query() {
    let cases = cases(OPEN);
    for case in &cases {
        let url = case.expect("url");
        let after_scheme = url.split_once("://").expect("a scheme").1;
        let target = &after_scheme[after_scheme.find('/').expect("a path")..];
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        assert_eq!(case.path(), path, "{}", case.name);
        let ours = query_string(&case.query());
        assert_eq!(sorted_query(&ours), sorted_query(query), "{}", case.name);
    }
    println!("open.json: {} URLs", cases.len());
    assert_eq!(cases.len(), 85, "cases in open.json");
}

#[test]
fn anchors_agree() {
    let cases = cases(ANCHORS);
    for case in &cases {
        let signed = case.sign();
        assert_eq!(header(&signed, "Authorization"), Some(case.expect("authorization")), "{}", case.name);
    }
    println!("anchors.json: {:?} V1 and V4 cases", count(&cases));
    assert_eq!(count(&cases), (2, 4), "V1 and V4 cases in anchors.json");
}

/// Control: the comparisons above can fail. One flipped bit of secret, key, or a signed header
/// changes the signature of every case it applies to.
#[test]
fn one_flipped_bit_changes_every_signature() {
    let flip = |text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[0] ^= 1; // first bytes in the vectors are ASCII or the case is skipped below
        String::from_utf8(bytes).ok()
    };
    let mut flipped = (0, 0);
    for case in cases(OPEN) {
        let mut other = case.clone();
        other.secret = flip(&case.secret).expect("ASCII");
        assert_ne!(other.sign().signature, case.expect("signature"), "{}", case.name);
        flipped.0 += 1;

        if let Some(key) = case.key.as_deref().and_then(flip) {
            let mut other = case.clone();
            other.key = Some(key);
            assert_ne!(other.sign().string_to_sign, case.expect("string_to_sign"));
            assert_ne!(other.sign().signature, case.expect("signature"), "{}", case.name);
            flipped.1 += 1;
        }
    }
    println!("controls: {} secrets, {} keys", flipped.0, flipped.1);
    assert_eq!(flipped.0, 85);
    assert!(flipped.1 >= 30, "{}", flipped.1);
}
