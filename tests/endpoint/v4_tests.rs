//! Unit tests of `v4` against the published and the golden vectors.

use super::*;
use crate::keys::Keys;
use crate::vectors::{cases_of, now, request, text};
use serde_json::Value;

fn verifier_with(case: &Value, change: &dyn Fn(&mut Credentials)) -> Verifier {
    let mut credentials = crate::vectors::credentials(case);
    change(&mut credentials);
    Verifier {
        keys: Keys::open(Some(credentials), None).unwrap(),
        region: text(&case["region"]).into(),
        product: text(&case["product"]).into(),
        anonymous: false,
        v1: false,
    }
}

fn verifier(case: &Value) -> Verifier {
    verifier_with(case, &|_| {})
}

fn all_cases() -> Vec<Value> {
    let (open, anchors) = cases_of("v4");
    assert_eq!((open.len(), anchors.len()), (43, 4));
    [open, anchors].concat()
}

#[test]
fn every_vector_is_accepted() {
    for case in all_cases() {
        let request = request(&case);
        assert_eq!(request.bucket.as_deref(), case["bucket"].as_str(), "{}", case["name"]);
        assert_eq!(request.key, text(&case["key"]).as_bytes(), "{}", case["name"]);
        if let Err(e) = verifier(&case).check(&request, now(&case)) {
            panic!("{}: {e:?}", case["name"]);
        }
        if let Some(expected) = case["expect"]["canonical_request"].as_str() {
            let auth = Authorization::parse(request.header("authorization").unwrap()).unwrap();
            let canonical = canonical_request(&request, &auth.additional).unwrap();
            assert_eq!(canonical, expected, "{}", case["name"]);
            assert_eq!(
                string_to_sign(&canonical, &auth, request.header("x-oss-date").unwrap()),
                text(&case["expect"]["string_to_sign"])
            );
        }
    }
}

fn set(request: &mut Request, name: &str, value: &str) {
    request.headers.iter_mut().filter(|(n, _)| n == name).for_each(|(_, v)| *v = value.into());
}

/// Flips the lowest bit of a byte that is a letter or digit, so that the text stays plausible.
fn flip(text: &str, at: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_changed_byte_is_refused() {
    for case in all_cases() {
        let (verifier, now, good) = (verifier(&case), now(&case), request(&case));
        let name = text(&case["name"]);
        let refused = |change: &dyn Fn(&mut Request), what: &str, code: &str| {
            let mut request = request(&case);
            change(&mut request);
            let error = verifier.check(&request, now).expect_err(&format!("{name}: {what} accepted"));
            assert_eq!(error.code, code, "{name}: {what}");
            assert!(error.status == 403 || code == "InvalidArgument", "{name}: {what}");
        };
        let mismatch = "SignatureDoesNotMatch";
        let auth = good.header("authorization").unwrap().to_owned();
        let from = auth.find("Signature=").unwrap() + "Signature=".len();
        for at in from..auth.len() {
            refused(&|r| set(r, "authorization", &flip(&auth, at)), "signature byte", mismatch);
        }
        refused(&|r| r.method = "POST".into(), "method", mismatch);
        refused(&|r| r.bucket = Some("other".into()), "bucket", mismatch);
        for at in 0..good.key.len() {
            refused(&|r| r.key[at] ^= 1, "key byte", mismatch);
        }
        refused(&|r| r.key.push(b'x'), "longer key", mismatch);
        refused(&|r| r.query += "&extra=1", "more query", mismatch);
        for (i, pair) in good.query.split('&').filter(|p| !p.is_empty()).enumerate() {
            let others = |changed: String| {
                let mut pairs: Vec<String> = good.query.split('&').map(Into::into).collect();
                pairs[i] = changed;
                pairs.join("&")
            };
            refused(&|r| r.query = others(format!("{}x", pair.trim_end_matches('='))), "query pair", mismatch);
            refused(&|r| r.query = others(String::new()), "missing pair", mismatch);
        }
        signed_headers_changed(&case, &good, &refused);
    }
}

type Refused<'a> = dyn Fn(&dyn Fn(&mut Request), &str, &str) + 'a;

fn signed_headers_changed(case: &Value, good: &Request, refused: &Refused<'_>) {
    let auth = Authorization::parse(good.header("authorization").unwrap()).unwrap();
    let mismatch = "SignatureDoesNotMatch";
    for (name, value) in &good.headers {
        let code = match name.as_str() {
            "x-oss-date" => continue,
            "x-oss-content-sha256" => "InvalidArgument",
            n if n.starts_with("x-oss-") || n.starts_with("content-") || auth.additional.iter().any(|a| a == n) => {
                mismatch
            }
            _ => continue,
        };
        refused(&|r| set(r, name, &format!("{value}x")), name, code);
        for at in 0..value.len() {
            refused(&|r| set(r, name, &flip_any(value, at)), name, code);
        }
        refused(&|r| r.headers.retain(|(n, _)| n != name), "missing header", code);
    }
    refused(&|r| r.headers.push(("x-oss-extra".into(), "1".into())), "extra x-oss header", mismatch);
    authorization_changed(case, good, refused);
}

fn authorization_changed(case: &Value, good: &Request, refused: &Refused<'_>) {
    let auth = Authorization::parse(good.header("authorization").unwrap()).unwrap();
    let mismatch = "SignatureDoesNotMatch";
    let earlier = clock::http_date(now(case) - 1);
    let sec = clock::parse_http(&earlier).unwrap();
    let moved = clock::list_date(sec).replace(['-', ':'], "").replace(".000", "");
    refused(&|r| set(r, "x-oss-date", &moved), "date a second earlier", mismatch);
    let header = good.header("authorization").unwrap();
    let swap = |old: &str, new: &str| header.replacen(old, new, 1);
    let (day, region, product) = (auth.day, auth.region, auth.product);
    let scope = format!("/{day}/{region}/{product}/");
    for other in [
        format!("/{day}/cn-other/{product}/"),
        format!("/{day}/{region}/oss-other/"),
        format!("/19990101/{region}/{product}/"),
    ] {
        refused(&|r| set(r, "authorization", &swap(&scope, &other)), &other, mismatch);
    }
    let id = format!("Credential={}", auth.access_key_id);
    refused(&|r| set(r, "authorization", &swap(&id, &format!("{id}x"))), "access key id", "InvalidAccessKeyId");
    refused(&|r| set(r, "authorization", &swap("aliyun_v4_request", "aws4_request")), "scope end", "InvalidArgument");
    refused(&|r| r.headers.retain(|(n, _)| n != "authorization"), "unsigned", "AccessDenied");
}

fn flip_any(text: &str, at: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
    String::from_utf8(bytes).unwrap()
}

#[test]
fn secrets_regions_tokens_and_dates() {
    let case = all_cases().into_iter().find(|c| c["name"] == "v4-sts-get-range").unwrap();
    let (request, now) = (request(&case), now(&case));
    let code = |change: &dyn Fn(&mut Verifier), now: i64| {
        let mut verifier = verifier(&case);
        change(&mut verifier);
        verifier.check(&request, now).map_err(|e| e.code)
    };
    let err = |code: &str| Err(code.to_owned());
    assert_eq!(code(&|_| {}, now + 900), Ok(()));
    assert_eq!(code(&|_| {}, now - 900), Ok(()));
    assert_eq!(code(&|_| {}, now + 901), err("RequestTimeTooSkewed"));
    assert_eq!(code(&|_| {}, now - 901), err("RequestTimeTooSkewed"));
    assert_eq!(code(&|v| v.region = "cn-other".into(), now), err("SignatureDoesNotMatch"));
    assert_eq!(code(&|v| v.product = "oss-cloudbox".into(), now), err("SignatureDoesNotMatch"));
    let keys = |change: fn(&mut Credentials)| verifier_with(&case, &change).check(&request, now).map_err(|e| e.code);
    assert_eq!(keys(|k| k.access_key_secret.push('x')), err("SignatureDoesNotMatch"));
    assert_eq!(keys(|k| k.access_key_id.push('x')), err("InvalidAccessKeyId"));
    assert_eq!(keys(|k| k.security_token = Some("other".into())), err("InvalidSecurityToken"));
    assert_eq!(keys(|k| k.security_token = None), err("InvalidSecurityToken"));
    assert_eq!(code(&|v| v.keys = Keys::open(None, None).unwrap(), now), err("InvalidAccessKeyId"));
}

#[test]
fn mismatch_tells_what_was_signed() {
    let case = &all_cases()[0];
    let verifier = verifier_with(case, &|keys| keys.access_key_secret = "wrong-secret".into());
    let error = verifier.check(&request(case), now(case)).unwrap_err();
    let xml = error.document("ID", "host");
    let escaped = |t: &Value| crate::text::xml_escape(text(t));
    let expect = &case["expect"];
    assert!(xml.contains(&format!("<StringToSign>{}</StringToSign>", escaped(&expect["string_to_sign"]))), "{xml}");
    assert!(
        xml.contains(&format!("<CanonicalRequest>{}</CanonicalRequest>", escaped(&expect["canonical_request"]))),
        "{xml}"
    );
    assert!(xml.contains("<EC>0002-00000040</EC>") && !xml.contains("wrong-secret"));
}

#[test]
fn anonymous_and_v1() {
    let plain = |extra: &str| {
        let head = format!("GET /b/k HTTP/1.1\r\nHost: 127.0.0.1\r\n{extra}\r\n");
        Request::parse(head.as_bytes()).unwrap().unwrap().0
    };
    let verifier = |anonymous| {
        let keys = Keys::open(None, None).unwrap();
        Verifier { keys, region: "r".into(), product: "oss".into(), anonymous, v1: false }
    };
    let code = |v: Verifier, r: &Request| v.check(r, 0).map_err(|e| (e.status, e.code, e.ec));
    assert_eq!(code(verifier(true), &plain("")), Ok(()));
    assert_eq!(code(verifier(false), &plain("")), Err((403, "AccessDenied".into(), "0003-00000001")));
    let v1 = plain("Authorization: OSS ak:c2ln\r\n");
    assert_eq!(code(verifier(true), &v1), Err((403, "AccessDenied".into(), "0002-00000080")));
}
