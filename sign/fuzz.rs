//! What must hold for any document of credentials: called with inputs of a fuzzer (tests/fuzz) and, in
//! the unit tests, with the corpus that is kept there. Not part of the product; it panics when its
//! property is broken, and returns nothing.

use crate::{Credentials, Issued, Secret};

/// Whatever a secret is, it starts so in the documents that are made here.
const HIDDEN: &str = "hidden-";

type Reader = fn(&[u8]) -> Result<Issued, String>;

/// The three documents: what is accepted can stand in a request head, and no message or debug text
/// has a secret.
pub fn issued(bytes: &[u8]) {
    let readers: [Reader; 3] = [Issued::from_file, Issued::from_metadata, Issued::from_sts];
    for read in readers {
        check(read(bytes));
    }
    let text = String::from_utf8_lossy(bytes);
    let secret = format!("{HIDDEN}{text}");
    let coded = serde_json::Value::from(secret.as_str());
    let good = secret.bytes().all(|byte| byte.is_ascii_graphic());
    for (name, other) in [("AccessKeySecret", "SecurityToken"), ("SecurityToken", "AccessKeySecret")] {
        let keys = format!(r#""AccessKeyId": "id", "{name}": {coded}, "{other}": "{HIDDEN}""#);
        let documents = [
            format!("{{{keys}}}"),
            format!(r#"{{{keys}, "Code": "Success"}}"#),
            format!(r#"{{"Credentials": {{{keys}}}}}"#),
        ];
        for (read, document) in readers.into_iter().zip(documents) {
            let read_as = read(document.as_bytes());
            assert_eq!(read_as.is_ok(), good, "{document}");
            check(read_as);
            // The same with something behind it, or cut short.
            check(read(format!("{document}{text}").as_bytes()));
            check(read(&document.as_bytes()[..bytes.len() % document.len()]));
        }
    }
}

fn check(read: Result<Issued, String>) {
    match read {
        Ok(issued) => {
            let Credentials { access_key_id, access_key_secret, security_token } = &issued.credentials;
            let token = security_token.as_ref().map(Secret::expose);
            for value in [Some(access_key_id.as_str()), Some(access_key_secret.expose()), token].into_iter().flatten() {
                assert!(!value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic()), "{value:?}");
            }
            let mut other = issued.clone();
            other.credentials.access_key_secret = Secret::new("another".into());
            other.credentials.security_token = security_token.as_ref().map(|_| Secret::new("another".into()));
            assert_eq!(format!("{issued:?}"), format!("{other:?}"), "a debug text that depends on a secret");
        }
        Err(message) => {
            assert!(!message.is_empty() && !message.chars().any(char::is_control), "{message:?}");
            assert!(message.len() < 200 && !message.contains(HIDDEN), "{message}");
        }
    }
}

#[cfg(test)]
#[path = "../tests/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
#[test]
fn kept_inputs() {
    replay::replay("issued", issued);
}
