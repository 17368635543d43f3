//! Temporary credentials as documents: what the credential file, the metadata service of an ECS
//! instance and the Security Token Service say. Called by the engine's credential sources. Pure: it
//! reads no file and opens no connection, and its errors repeat nothing of a document.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::date;
use crate::secret::{Credentials, Secret};

/// Credentials, and how long they are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// For the signer.
    pub credentials: Credentials,
    /// Seconds since 1970 (UTC) from which on OSS refuses them; `None` if the document names no
    /// end.
    pub ends_secs: Option<i64>,
}

/// The keys that all three documents share.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    access_key_id: Option<String>,
    access_key_secret: Option<String>,
    security_token: Option<String>,
    expiration: Option<String>,
    /// Of the metadata service.
    code: Option<String>,
}

/// AssumeRoleWithOIDC, `Format=JSON`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Assumed {
    credentials: Document,
}

impl Issued {
    /// The file of OSS_AUTHORIZATION_FILE_PATH: `AccessKeyId`, `AccessKeySecret`, and with temporary
    /// credentials `SecurityToken` and `Expiration`. Other keys are ignored.
    ///
    /// # Errors
    /// What is missing or wrong, for a message.
    pub fn from_file(text: &[u8]) -> Result<Issued, String> {
        issued(parse(text)?, false)
    }

    /// `/latest/meta-data/ram/security-credentials/ROLE`: the same keys, and `Code`, which must be
    /// `Success`.
    ///
    /// # Errors
    /// What is missing or wrong, for a message.
    pub fn from_metadata(text: &[u8]) -> Result<Issued, String> {
        let document: Document = parse(text)?;
        match document.code.as_deref() {
            Some("Success") => issued(document, true),
            // A word of the service; it cannot be a key.
            Some(code) if code.bytes().all(|byte| byte.is_ascii_alphanumeric()) && code.len() < 64 => {
                Err(format!("its Code is {code}"))
            }
            _ => Err("it has no Code that says Success".into()),
        }
    }

    /// The answer of AssumeRoleWithOIDC: the same keys below `Credentials`.
    ///
    /// # Errors
    /// What is missing or wrong, for a message.
    pub fn from_sts(text: &[u8]) -> Result<Issued, String> {
        issued(parse::<Assumed>(text)?.credentials, true)
    }
}

/// serde_json's own messages repeat values, which may be secrets: only the place is told.
fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    // A file that an editor of another system has written may begin with a byte order mark.
    serde_json::from_slice(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)).map_err(|error| {
        let what =
            if error.is_data() { "a key is missing, stands there twice, or is no text" } else { "not valid JSON" };
        format!("{what} (line {}, column {})", error.line(), error.column())
    })
}

fn issued(document: Document, temporary: bool) -> Result<Issued, String> {
    let given = |name: &str, value: Option<String>| match value {
        None => Ok(None),
        Some(value) if value.is_empty() => Ok(None),
        // They become parts of a request head: a line break in one would be a header of its own.
        Some(value) if !value.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(format!("{name} holds white space or characters that no key has"))
        }
        Some(value) => Ok(Some(value)),
    };
    let needed = |name: &str, value| given(name, value)?.ok_or_else(|| format!("{name} is missing"));
    let access_key_id = needed("AccessKeyId", document.access_key_id)?;
    let access_key_secret = Secret::new(needed("AccessKeySecret", document.access_key_secret)?);
    let security_token = given("SecurityToken", document.security_token)?.map(Secret::new);
    if temporary && security_token.is_none() {
        return Err("SecurityToken is missing".into());
    }
    let end = |text: String| {
        date::parse_utc(&text).ok_or_else(|| "Expiration is not a time such as 2024-08-02T15:04:05Z".to_owned())
    };
    let ends_secs = document.expiration.filter(|text| !text.is_empty()).map(end).transpose()?;
    Ok(Issued { credentials: Credentials { access_key_id, access_key_secret, security_token }, ends_secs })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = r#""AccessKeyId": "STS.id", "AccessKeySecret": "sec-hidden", "SecurityToken": "tok-hidden",
        "Expiration": "2024-08-02T15:04:05Z""#;

    #[test]
    fn all_three_documents_say_the_same() {
        let file = Issued::from_file(format!("{{{KEYS}}}").as_bytes()).expect("file");
        assert_eq!(file.credentials.access_key_id, "STS.id");
        assert_eq!(file.credentials.access_key_secret.expose(), "sec-hidden");
        assert_eq!(file.credentials.security_token.as_ref().map(|token| token.expose()), Some("tok-hidden"));
        assert_eq!(file.ends_secs, Some(1_722_611_045));
        let metadata = format!(r#"{{{KEYS}, "Code": "Success", "LastUpdated": "2024-08-02T09:04:05Z"}}"#);
        assert_eq!(Issued::from_metadata(metadata.as_bytes()), Ok(file.clone()));
        let sts = format!(r#"{{"RequestId": "1", "Credentials": {{{KEYS}}}, "AssumedRoleUser": {{"Arn": "a"}}}}"#);
        assert_eq!(Issued::from_sts(sts.as_bytes()), Ok(file.clone()));
        assert!(!format!("{file:?}").contains("hidden"));
    }

    #[test]
    fn a_file_may_hold_a_lasting_key() {
        let file = br#"{"AccessKeyId": "id", "AccessKeySecret": "s", "SecurityToken": "", "Expiration": null}"#;
        let issued = Issued::from_file(file).expect("file");
        assert_eq!((issued.credentials.security_token, issued.ends_secs), (None, None));
        let marked = [b"\xef\xbb\xbf".as_slice(), file].concat();
        assert!(Issued::from_file(&marked).is_ok(), "a byte order mark is no part of it");
    }

    #[test]
    fn mistakes_are_named_without_their_values() {
        let file = |text: &str| Issued::from_file(text.as_bytes()).expect_err(text);
        for (text, words) in [
            ("", "not valid JSON (line 1"),
            (r#"{"AccessKeyId": "id", "AccessKeySecret": "sec-hid"#, "not valid JSON"),
            (
                r#"{"AccessKeyId": "id", "AccessKeySecret": 5}"#,
                "a key is missing, stands there twice, or is no text (line 1, column",
            ),
            (r#"["sec-hidden"]"#, "a key is missing, stands there twice, or is no text"),
            (r#"{"AccessKeyId": "id", "AccessKeyId": "sec-hidden"}"#, "a key is missing, stands there twice"),
            (r#"{"AccessKeyId": "id"}"#, "AccessKeySecret is missing"),
            (r#"{"AccessKeyId": "", "AccessKeySecret": "sec-hidden"}"#, "AccessKeyId is missing"),
            (r#"{"AccessKeyId": "id", "AccessKeySecret": "sec-hidden\r\nX: y"}"#, "AccessKeySecret holds white space"),
            (
                r#"{"AccessKeyId": "id", "AccessKeySecret": "sec-hidden", "Expiration": "soon"}"#,
                "Expiration is not a time",
            ),
        ] {
            let error = file(text);
            assert!(error.contains(words) && !error.contains("sec-hid"), "{text}: {error}");
        }
        let refused = |text: &str| Issued::from_metadata(text.as_bytes()).expect_err(text);
        assert_eq!(refused(r#"{"Code": "AssumeRoleUnauthorized"}"#), "its Code is AssumeRoleUnauthorized");
        assert!(refused("{}").contains("no Code"));
        assert!(Issued::from_sts(b"{}").is_err());
        let lasting = br#"{"Credentials": {"AccessKeyId": "id", "AccessKeySecret": "s"}}"#;
        assert_eq!(Issued::from_sts(lasting), Err("SecurityToken is missing".into()));
    }
}
