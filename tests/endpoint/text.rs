//! Percent, hex and XML spellings. Called by nearly every other file. Never normalizes: bytes
//! that cannot be spelt are encoded, not replaced, except in XML without `encoding-type=url`.

/// Percent-encodes all but `A-Za-z0-9-_.~` (and `/` if `keep_slash`), upper-case hex: the V4
/// rule, and what listings use under `encoding-type=url`.
pub(crate) fn percent_encode(bytes: &[u8], keep_slash: bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &b in bytes {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(b as char),
            b'/' if keep_slash => out.push('/'),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// Undoes `%XX`; `+` stays a plus. `None` on a broken escape.
pub(crate) fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        if b != b'%' {
            out.push(b);
            rest = tail;
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        if !digits.bytes().all(|d| d.is_ascii_hexdigit()) {
            return None;
        }
        out.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    Some(out)
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Text content of an XML element. Control characters become references, which a strict XML 1.0
/// parser refuses: the reason why clients ask for `encoding-type=url`.
pub(crate) fn xml_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => out.push_str(&format!("&#{};", c as u32)),
            c if (c as u32) < 0x20 => out.push_str(&format!("&#x{:X};", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// `<name>text</name>` with the text escaped.
pub(crate) fn element(name: &str, text: &str) -> String {
    format!("<{name}>{}</{name}>", xml_escape(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_round_trip() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(percent_decode(&percent_encode(&all, false)).unwrap(), all);
        assert_eq!(percent_encode(b"a/b c+(~)%", true), "a/b%20c%2B%28~%29%25");
        assert_eq!(percent_encode(b"a/b", false), "a%2Fb");
        assert_eq!(percent_decode("a+b%2b"), Some(b"a+b+".to_vec()));
        for bad in ["%", "%4", "%zz", "a%+1"] {
            assert_eq!(percent_decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn xml_text() {
        assert_eq!(element("Key", "a&<\">\n\u{1}"), "<Key>a&amp;&lt;&quot;&gt;&#10;&#x1;</Key>");
    }
}
