//! What the check of any environment variable may need. Called by `env` and `credentials`.

use std::fmt;

use crate::reason::{self, Reason};

/// The refusal of a value.
pub(crate) fn invalid<T>(name: &str, why: impl fmt::Display) -> Result<T, Reason> {
    Err(Reason::new(reason::INVALID_VARIABLE, format!("{name} {why}")))
}

/// What the variable's word stands for; `None` where it is not set.
pub(crate) fn choice<T: Copy>(
    text: &impl Fn(&str) -> Option<String>,
    name: &str,
    allowed: &[(&str, T)],
) -> Result<Option<T>, Reason> {
    let Some(value) = text(name) else {
        return Ok(None);
    };
    match allowed.iter().find(|(word, _)| *word == value) {
        Some((_, chosen)) => Ok(Some(*chosen)),
        None => {
            let words: Vec<&str> = allowed.iter().map(|(word, _)| *word).collect();
            let shown = value.escape_debug();
            invalid(name, format!("is `{shown}`; set it to {} or unset it", words.join(" or ")))
        }
    }
}
