//! Unit tests of `v1` against the published and the golden vectors.

use super::*;
use crate::vectors::{self, cases_of, now, request, text};
use serde_json::Value;

fn all_cases() -> Vec<Value> {
    let (open, anchors) = cases_of("v1");
    assert_eq!((open.len(), anchors.len()), (42, 2));
    [open, anchors].concat()
}

fn keys(case: &Value) -> Keys {
    Keys::open(Some(vectors::credentials(case)), None).unwrap()
}

fn verdict(case: &Value, request: &Request) -> Result<(), String> {
    let header = request.header("authorization").unwrap();
    check(&keys(case), request, header, now(case)).map_err(|e| e.code)
}

#[test]
fn every_vector_is_accepted() {
    for case in all_cases() {
        let request = request(&case);
        assert_eq!(verdict(&case, &request), Ok(()), "{}", case["name"]);
        if let Some(expected) = case["expect"]["string_to_sign"].as_str() {
            assert_eq!(String::from_utf8(string_to_sign(&request).unwrap()).unwrap(), expected, "{}", case["name"]);
        }
    }
}

fn refused(case: &Value, what: &str, change: &dyn Fn(&mut Request)) {
    let mut request = request(case);
    change(&mut request);
    assert_eq!(verdict(case, &request), Err("SignatureDoesNotMatch".into()), "{}: {what}", text(&case["name"]));
}

fn set(request: &mut Request, name: &str, value: &str) {
    request.headers.iter_mut().filter(|(n, _)| n == name).for_each(|(_, v)| *v = value.into());
}

#[test]
fn every_changed_part_is_refused() {
    for case in all_cases() {
        let good = request(&case);
        let auth = good.header("authorization").unwrap().to_owned();
        let from = auth.find(':').unwrap() + 1;
        for at in from..auth.len() {
            let other = if auth.as_bytes()[at] == b'A' { "B" } else { "A" };
            refused(&case, "signature", &|r| {
                set(r, "authorization", &format!("{}{other}{}", &auth[..at], &auth[at + 1..]))
            });
        }
        refused(&case, "method", &|r| r.method = "POST".into());
        refused(&case, "bucket", &|r| r.bucket = Some("other".into()));
        for at in 0..good.key.len() {
            refused(&case, "key byte", &|r| r.key[at] ^= 1);
        }
        refused(&case, "longer key", &|r| r.key.push(b'x'));
        refused(&case, "a sub-resource more", &|r| r.query += "&uploads");
        refused(&case, "an x-oss header more", &|r| r.headers.push(("x-oss-extra".into(), "1".into())));
        for (name, value) in &good.headers {
            let is_signed = name.starts_with("x-oss-") && name != "x-oss-date" || name.starts_with("content-");
            if is_signed {
                refused(&case, name, &|r| set(r, name, &format!("{value}x")));
                refused(&case, name, &|r| r.headers.retain(|(n, _)| n != name));
            }
        }
        let name = if good.header("x-oss-date").is_some() { "x-oss-date" } else { "date" };
        refused(&case, "another date", &|r| set(r, name, &clock::http_date(now(&case) - 1)));
    }
}

#[test]
fn what_is_not_signed_may_change() {
    let case = all_cases().into_iter().find(|c| c["name"] == "v1-list2-full").unwrap();
    let mut request = request(&case);
    request.query = request.query.replace("max-keys=1000", "max-keys=1");
    assert_eq!(verdict(&case, &request), Ok(()));
}

#[test]
fn keys_tokens_and_dates() {
    let case = all_cases().into_iter().find(|c| c["name"] == "v1-sts-get-range").unwrap();
    let (request, now) = (request(&case), now(&case));
    let header = request.header("authorization").unwrap();
    let code = |keys: &Keys, now: i64| check(keys, &request, header, now).map_err(|e| e.code);
    let good = keys(&case);
    assert_eq!((code(&good, now + 900), code(&good, now - 900)), (Ok(()), Ok(())));
    assert_eq!(code(&good, now + 901), Err("RequestTimeTooSkewed".into()));
    assert_eq!(code(&Keys::open(None, None).unwrap(), now), Err("InvalidAccessKeyId".into()));
    let mut other = vectors::credentials(&case);
    other.security_token = Some("other".into());
    assert_eq!(code(&Keys::open(Some(other), None).unwrap(), now), Err("InvalidSecurityToken".into()));
    for broken in ["OSS", "OSS ", "OSS id"] {
        assert!(check(&good, &request, broken, now).is_err_and(|e| e.code == "InvalidArgument"), "{broken}");
    }
}
