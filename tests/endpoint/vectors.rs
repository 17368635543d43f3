//! Test only: the golden vectors as requests that came on the wire, for the tests of both verifiers.

use crate::clock;
use crate::config::Credentials;
use crate::request::Request;
use crate::text::percent_encode;
use serde_json::Value;

const OPEN: &str = include_str!("../../sign/vectors/open.json");
const ANCHORS: &str = include_str!("../../sign/vectors/anchors.json");

/// Cases of one version: of the golden and of the published vectors.
pub(crate) fn cases_of(sig: &str) -> (Vec<Value>, Vec<Value>) {
    let cases = |text: &str| -> Vec<Value> {
        let all: Vec<Value> = serde_json::from_str(text).unwrap();
        all.into_iter().filter(|c| c["sig"] == sig).collect()
    };
    (cases(OPEN), cases(ANCHORS))
}

/// A text, or nothing.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The key that signed a case.
pub(crate) fn credentials(case: &Value) -> Credentials {
    Credentials {
        access_key_id: text(&case["access_key_id"]).into(),
        access_key_secret: text(&case["access_key_secret"]).into(),
        security_token: case["security_token"].as_str().map(Into::into),
    }
}

fn basic_date(case: &Value) -> String {
    text(&case["date_iso"]).chars().filter(|c| !matches!(c, '-' | ':')).collect()
}

/// When a case was signed (seconds since 1970).
pub(crate) fn now(case: &Value) -> i64 {
    clock::parse_basic(&basic_date(case)).unwrap()
}

/// The request as a client that sends this case would put it on the wire.
pub(crate) fn request(case: &Value) -> Request {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: &str| headers.push((name.into(), value.into()));
    let url = text(&case["expect"]["url"]);
    let mut head = if url.is_empty() {
        let (bucket, query) = (text(&case["bucket"]), text(&case["raw_query"]));
        let key = percent_encode(text(&case["key"]).as_bytes(), true);
        add("host", "127.0.0.1");
        if case["sig"] == "v4" {
            add("x-oss-date", &basic_date(case));
        }
        if let Some(token) = case["security_token"].as_str() {
            add("x-oss-security-token", token);
        }
        case["headers"].as_object().unwrap().iter().for_each(|(n, v)| add(n, text(v)));
        format!("{} /{bucket}/{key}?{query} HTTP/1.1\r\n", text(&case["method"]))
    } else {
        let rest = url.split_once("://").unwrap().1;
        let at = rest.find('/').unwrap();
        let sent = case["expect"]["wire_headers"].as_object().unwrap();
        if !sent.keys().any(|n| n.eq_ignore_ascii_case("host")) {
            add("Host", &rest[..at]);
        }
        sent.iter().for_each(|(n, v)| add(n, text(v)));
        format!("{} {} HTTP/1.1\r\n", text(&case["method"]), &rest[at..])
    };
    add("Authorization", text(&case["expect"]["authorization"]));
    headers.iter().for_each(|(n, v)| head += &format!("{n}: {v}\r\n"));
    let mut request = Request::parse(format!("{head}\r\n").as_bytes()).unwrap().unwrap().0;
    if case["address_style"] == "cname" {
        // The host of a CNAME does not tell the bucket; OSS knows it from its binding.
        request.bucket = Some(text(&case["bucket"]).into());
    }
    request
}
