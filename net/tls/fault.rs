//! A refusal of TLS in words: which host, why, and what to do. Called by the connection.
//! Never prints keys or sessions: rustls keeps them out of its errors.

use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error as Cause, InvalidMessage};

use crate::error::{Error, FailureKind, Phase, printable};

/// What `cause` means; `phase` is TLS in the handshake, later that of the request.
pub(super) fn error(host: &str, phase: Phase, cause: &Cause) -> Error {
    let kind = kind(phase, cause);
    let text = match cause {
        Cause::InvalidCertificate(why) => format!("the certificate of {host} is refused: {}", certificate(why)),
        Cause::AlertReceived(alert) if phase == Phase::Tls => {
            format!("{host} ended the handshake with alert {alert:?}{}", alert_advice(*alert))
        }
        Cause::AlertReceived(alert) => format!("{host} ended the TLS session with alert {alert:?}"),
        Cause::InvalidMessage(InvalidMessage::InvalidContentType) if phase == Phase::Tls => {
            format!("{host} does not speak TLS at this port: check the port, or write http:// in OSS_ENDPOINT")
        }
        Cause::PeerIncompatible(why) => {
            format!("{host} and this client have no TLS in common ({why:?}); TLS 1.2 and 1.3 with AES-GCM are spoken")
        }
        Cause::DecryptError => format!("a TLS record of {host} was altered on the way"),
        other => format!("the TLS of {host} is broken: {other}"),
    };
    Error::new(kind, phase, printable(&text))
}

/// What only somebody can mend is not retried; what the network may have done is.
fn kind(phase: Phase, cause: &Cause) -> FailureKind {
    use AlertDescription as Alert;
    match cause {
        Cause::InvalidCertificate(_) | Cause::NoCertificatesPresented | Cause::PeerIncompatible(_) => FailureKind::Tls,
        Cause::AlertReceived(
            Alert::InternalError | Alert::BadRecordMac | Alert::DecryptError | Alert::UserCanceled,
        ) => FailureKind::Network,
        Cause::AlertReceived(_) | Cause::InvalidMessage(_) if phase == Phase::Tls => FailureKind::Tls,
        Cause::FailedToGetCurrentTime | Cause::FailedToGetRandomBytes => FailureKind::Local,
        _ => FailureKind::Network,
    }
}

fn alert_advice(alert: AlertDescription) -> &'static str {
    use AlertDescription as Alert;
    match alert {
        Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            "; TLS 1.2 and 1.3 with AES-GCM are spoken"
        }
        Alert::UnrecognisedName => "; it does not know that name: check OSS_ENDPOINT and the bucket",
        Alert::CertificateRequired => "; it asks for a client certificate, which OSS does not",
        _ => "",
    }
}

fn certificate(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => "unknown issuer: no trusted root signed it; a CA of your own is trusted \
             through tls.caFile in the configuration file or SSL_CERT_FILE"
            .into(),
        CertificateError::Expired => "it has expired; renew it, or set this machine's clock".into(),
        CertificateError::ExpiredContext { time, not_after } => {
            let (now, end) = (date(*time), date(*not_after));
            format!("it has expired on {end} (this machine's time: {now}); renew it, or set the clock")
        }
        CertificateError::NotValidYet => "it is not valid yet; set this machine's clock".into(),
        CertificateError::NotValidYetContext { time, not_before } => {
            let (now, start) = (date(*time), date(*not_before));
            format!("it is valid from {start} on (this machine's time: {now}); set the clock")
        }
        CertificateError::NotValidForName => "it is for another name".into(),
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names = if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") };
            format!("it is for another name ({names})")
        }
        CertificateError::Revoked => "it was revoked".into(),
        other => format!("{other:?}"),
    }
}

fn date(time: UnixTime) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs()))
}
