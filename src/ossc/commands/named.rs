//! Files and folders that a user names to a command, as paths below MODEL_DIR.
//!
//! Called by the commands that take such names (`warm`, `drop`, `plan`, `verify`). It looks at no file that is named: what
//! there is below MODEL_DIR is the bucket's to say.

use std::path::{Component, Path, PathBuf};

/// The path below MODEL_DIR, as objects have it; empty for MODEL_DIR itself. A relative one begins there, an absolute one
/// has to lie there.
///
/// # Errors
/// It lies elsewhere, or is no name that an object can have, in words that do not repeat the file.
pub fn below(model_dir: &Path, file: &Path) -> Result<String, String> {
    let outside = || format!("it does not lie in MODEL_DIR {}", model_dir.display());
    let mut names: Vec<&str> = Vec::new();
    let relative = if file.is_absolute() { within(model_dir, file).ok_or_else(outside)? } else { file.to_path_buf() };
    for component in relative.components() {
        match component {
            Component::Normal(name) => {
                names.push(name.to_str().ok_or("it is no UTF-8, which names of objects are")?);
            }
            Component::ParentDir => drop(names.pop().ok_or_else(outside)?),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(names.join("/"))
}

/// All of them; MODEL_DIR itself where there is none.
///
/// # Errors
/// As of `below`, with the file.
pub fn all_below(model_dir: &Path, files: &[PathBuf]) -> Result<Vec<String>, String> {
    let named = |file: &PathBuf| below(model_dir, file).map_err(|why| format!("{}: {why}", file.display()));
    let names: Vec<String> = files.iter().map(named).collect::<Result<_, _>>()?;
    Ok(if names.is_empty() { vec![String::new()] } else { names })
}

/// What of an absolute path lies behind MODEL_DIR, as that is written or as it is without links.
fn within(model_dir: &Path, file: &Path) -> Option<PathBuf> {
    let written = std::path::absolute(model_dir).ok();
    let real = || model_dir.canonicalize().ok();
    let behind = |folder: PathBuf| file.strip_prefix(folder).ok().map(Path::to_path_buf);
    written.and_then(behind).or_else(|| real().and_then(behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_below_the_folder_however_they_are_written() {
        let of = |file: &str| below(Path::new("/m/d"), Path::new(file));
        for (file, name) in [
            ("a.bin", "a.bin"),
            ("./a.bin", "a.bin"),
            ("n//e/./f/", "n/e/f"),
            ("n/../a.bin", "a.bin"),
            ("/m/d/n/a.bin", "n/a.bin"),
            ("/m/d//./a.bin", "a.bin"),
            ("/m/d/", ""),
            (".", ""),
        ] {
            assert_eq!(of(file).as_deref(), Ok(name), "{file}");
        }
        for file in ["/", "/m", "/m/dd/a.bin", "../a.bin", "n/../../a.bin", "/m/d/../a.bin"] {
            assert_eq!(of(file), Err("it does not lie in MODEL_DIR /m/d".to_string()), "{file}");
        }
        let all = all_below(Path::new("/m/d"), &["a.bin".into(), "../b".into()]);
        assert_eq!(all, Err("../b: it does not lie in MODEL_DIR /m/d".into()));
    }

    #[test]
    fn a_folder_that_is_a_link_or_relative_is_found() {
        let scratch = std::env::temp_dir().join(format!("ossc-named-{}", std::process::id()));
        std::fs::create_dir(&scratch).unwrap();
        let (real, link) = (scratch.canonicalize().unwrap().join("real"), scratch.join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(below(&link, &real.join("a")).as_deref(), Ok("a"));
        assert_eq!(below(&link, &link.join("a")).as_deref(), Ok("a"));
        std::fs::remove_dir_all(&scratch).unwrap();
        let here = std::env::current_dir().unwrap().join("models/a");
        assert_eq!(below(Path::new("models"), &here).as_deref(), Ok("a"));
    }
}
