//! An OSS error and its XML document. Made by every file that refuses; turned into bytes by
//! `answer`. Never carries a secret of this endpoint.

use crate::text::element;

/// One refusal. `ec` values are for people only: clients must not branch on them; those of
/// SignatureDoesNotMatch, RequestTimeTooSkewed and V1 are documented, the others are plausible.
#[derive(Debug)]
pub(crate) struct OssError {
    pub status: u16,
    pub code: String,
    pub message: String,
    pub ec: &'static str,
    /// Further elements of the document, e.g. StringToSign.
    pub details: Vec<(&'static str, String)>,
}

impl OssError {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into(), ec: ec(code), details: Vec::new() }
    }

    pub(crate) fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidArgument", message)
    }

    /// The document of section "Errors": Code, Message, RequestId, HostId, details, EC.
    pub(crate) fn document(&self, request_id: &str, host: &str) -> String {
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>\n  ");
        let plain =
            [("Code", self.code.as_str()), ("Message", &self.message), ("RequestId", request_id), ("HostId", host)];
        let details = self.details.iter().map(|(n, t)| (*n, t.as_str()));
        for (name, text) in plain.into_iter().chain(details) {
            xml += &element(name, text);
            xml += "\n  ";
        }
        xml += &element("EC", self.ec);
        xml +=
            &format!("\n  <RecommendDoc>https://api.aliyun.com/troubleshoot?q={}</RecommendDoc>\n</Error>\n", self.ec);
        xml
    }
}

fn ec(code: &str) -> &'static str {
    match code {
        "SignatureDoesNotMatch" => "0002-00000040",
        "RequestTimeTooSkewed" => "0002-00000504",
        "InvalidAccessKeyId" => "0002-00000902",
        "InvalidSecurityToken" => "0002-00000903",
        "SecurityTokenExpired" => "0002-00000904",
        "AccessDenied" => "0003-00000001",
        "NoSuchBucket" => "0015-00000101",
        "NoSuchKey" => "0026-00000001",
        "PreconditionFailed" => "0023-00000301",
        "InvalidRange" => "0039-00000001",
        "InvalidArgument" => "0016-00000502",
        _ => "0099-00000001",
    }
}
