//! What must hold for any name that an object, a folder or MODEL_DIR may have, where an engine tells of it: called with inputs
//! of a fuzzer (tests/fuzz) and, in the unit tests, with the corpus that is kept there. Not part of the product; each function
//! panics when its property is broken, and returns nothing.

use crate::journal::line::{Form, without_controls};
use crate::process::exposition::{OBJECT_READY, Page};
use ossc_cache::cpath::CPath;
use ossc_conf::LogFormat;
use serde_json::{Value, json};
use std::time::SystemTime;
use tracing::Level;

/// A sample as a reader of the format has it: name, labels, value.
type Sample = (String, Vec<(String, String)>, f64);

/// The page of metrics: whoever reads the format gets the names that went in, and each with its own number.
pub fn page(bytes: &[u8]) {
    let mut texts = bytes.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    let model_dir = texts.next().unwrap_or_default();
    let mut page = Page::new(&model_dir);
    page.head(&OBJECT_READY);
    let mut expected: Vec<Sample> = Vec::new();
    for (number, name) in (1_u64..).zip(texts) {
        page.line(OBJECT_READY.0, &[("object", &name)], number);
        let labels = vec![("model_dir".to_string(), model_dir.clone()), ("object".to_string(), name)];
        expected.push((format!("ossc_{}", OBJECT_READY.0), labels, number as f64));
    }
    let found = samples(page.text()).unwrap_or_else(|why| panic!("{why}: {:?}", page.text()));
    assert_eq!(found, expected);
}

/// The lines of log and audit, those of the library among them: one line, without a control character, and in JSON the same
/// text.
pub fn line(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let of = |format: LogFormat| {
        let form = Form(format);
        String::from_utf8(form.line(SystemTime::UNIX_EPOCH, &form.of_words(Level::WARN, &text))).expect("UTF-8")
    };
    let one_line = |line: &str| assert!(!line.contains(char::is_control), "{line:?}");
    one_line(of(LogFormat::Text).strip_suffix('\n').expect("an end"));
    let json = of(LogFormat::Json);
    one_line(json.strip_suffix('\n').expect("an end"));
    let read: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(read["message"].as_str(), Some(&*text));
    let audit = json!({"object": text, &*text: 1});
    let shown = without_controls(audit.to_string());
    one_line(&shown);
    assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON"), audit);
    let quoted = CPath::default().with_quoted(bytes);
    // One that is too long has no end.
    if quoted.as_cstr().is_some() {
        one_line(&String::from_utf8_lossy(quoted.as_bytes()));
        serde_json::from_slice::<String>(quoted.as_bytes()).expect("a text of JSON");
    }
}

/// Reads the text exposition format, strictly.
fn samples(text: &str) -> Result<Vec<Sample>, String> {
    let (mut left, mut found) = (text, Vec::new());
    while !left.is_empty() {
        if left.starts_with('#') {
            left = left.split_once('\n').ok_or("a comment without an end")?.1;
            continue;
        }
        let (name, mut rest) = word(left)?;
        let mut labels = Vec::new();
        rest = rest.strip_prefix('{').ok_or("no labels")?;
        loop {
            let (label, behind) = word(rest)?;
            let (value, behind) = quoted(behind.strip_prefix("=\"").ok_or("no value of a label")?)?;
            labels.push((label.to_string(), value));
            match behind.split_at_checked(1) {
                Some((",", more)) => rest = more,
                Some(("}", more)) => {
                    rest = more;
                    break;
                }
                _ => return Err("no end of the labels".into()),
            }
        }
        let (value, behind) = rest.strip_prefix(' ').and_then(|rest| rest.split_once('\n')).ok_or("no value")?;
        found.push((name.to_string(), labels, value.parse().map_err(|_| format!("{value:?} is no number"))?));
        left = behind;
    }
    Ok(found)
}

fn word(text: &str) -> Result<(&str, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if word.starts_with(|c: char| !c.is_ascii_digit()) { Ok((word, rest)) } else { Err("no name".into()) }
}

fn quoted(text: &str) -> Result<(String, &str), String> {
    let (mut value, mut letters) = (String::new(), text.char_indices());
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, &text[at + 1..])),
            '\n' => return Err("a line that ends within a label".into()),
            '\\' => value.push(match letters.next() {
                Some((_, 'n')) => '\n',
                Some((_, letter @ ('"' | '\\'))) => letter,
                other => return Err(format!("{other:?} behind a backslash")),
            }),
            letter => value.push(letter),
        }
    }
    Err("a label without an end".into())
}

#[cfg(test)]
#[path = "../../tests/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
#[test]
fn kept_inputs() {
    replay::replay("page", page);
    replay::replay("line", line);
}

#[cfg(test)]
#[test]
fn what_is_not_in_the_format_is_noticed() {
    for text in [
        "a{b=\"c\"} x\n",
        "a{b=\"c\n\"} 1\n",
        "a{b=\"c\\x\"} 1\n",
        "a{b=\"c\"d\"} 1\n",
        "a{b=\"c\"} 1",
        "1a{b=\"c\"} 1\n",
    ] {
        assert!(samples(text).is_err(), "{text:?}");
    }
    let read = samples("# HELP a b\na{b=\"c\\\\\\\"\\n\",d=\"\"} 1.5\n").unwrap();
    assert_eq!(read, [("a".into(), vec![("b".into(), "c\\\"\n".into()), ("d".into(), String::new())], 1.5)]);
}
