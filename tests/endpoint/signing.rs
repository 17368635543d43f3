//! The vectors over real loopback sockets.

mod rig;

use oss_endpoint::{Config, Credentials, Endpoint};
use rig::{Client, Rig};
use serde_json::Value;

/// Each vector as a client would send it, through a socket.
#[test]
fn vectors_over_sockets() {
    let all: Vec<Value> = serde_json::from_str(include_str!("../../sign/vectors/open.json")).unwrap();
    let rig = Rig::new();
    let mut tried = 0;
    for case in all.iter().filter(|c| c["address_style"] != "cname") {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let config = Config {
            anonymous: false,
            credentials: Some(Credentials {
                access_key_id: text(&case["access_key_id"]),
                access_key_secret: text(&case["access_key_secret"]),
                security_token: case["security_token"].as_str().map(Into::into),
            }),
            v1: true,
            region: text(&case["region"]),
            product: text(&case["product"]),
            now_fixed: Some(unix_sec(&text(&case["date_iso"]))),
            ..rig.config()
        };
        let endpoint = Endpoint::start(&config).unwrap();
        let url = text(&case["expect"]["url"]);
        let rest = url.split_once("://").unwrap().1;
        let (host, target) = rest.split_at(rest.find('/').unwrap());
        let mut headers: Vec<(String, String)> = vec![("Host".into(), host.into())];
        for (name, value) in case["expect"]["wire_headers"].as_object().unwrap() {
            headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
            headers.push((name.clone(), text(value)));
        }
        let auth = text(&case["expect"]["authorization"]);
        let ask = |auth: &str| {
            let mut sent: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            sent.push(("Authorization", auth));
            Client::to(endpoint.addr()).round_trip(case["method"].as_str().unwrap(), target, &sent).status
        };
        // The bucket of the vectors does not exist here: 404 means the signature held.
        assert!(ask(&auth) == 404, "{}", case["name"]);
        let end = if auth.ends_with('0') { "1" } else { "0" };
        assert_eq!(ask(&format!("{}{end}", &auth[..auth.len() - 1])), 403, "{}", case["name"]);
        tried += 1;
    }
    assert_eq!(tried, 83);
}

/// Days by counting, as an independent check of the endpoint's calendar.
fn unix_sec(iso: &str) -> i64 {
    let n: Vec<i64> = iso.split(['-', 'T', ':', 'Z']).filter(|p| !p.is_empty()).map(|p| p.parse().unwrap()).collect();
    let leap = |y: i64| (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    let months = [31, 28 + i64::from(leap(n[0])), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days: i64 = (1970..n[0]).map(|y| 365 + i64::from(leap(y))).sum::<i64>()
        + months[..n[1] as usize - 1].iter().sum::<i64>()
        + n[2]
        - 1;
    days * 86400 + n[3] * 3600 + n[4] * 60 + n[5]
}
