//! Which objects of a folder are fetched ahead, and in which order. Pure.
//!
//! Called by the mirror after a listing: names and sizes in, order out. The weights that an index names
//! come first; without an index the best format that is there; formats beside it are not fetched.

/// Formats of weights, best first.
const FORMATS: [&[&str]; 3] = [&[".safetensors"], &[".gguf"], &[".bin", ".pt", ".pth"]];
const INDEX: &str = ".index.json";

/// Positions in `large` (names inside one folder) of what to fetch ahead, in order. `small` are the names
/// of the other objects of the folder, among them the index.
pub fn ahead(large: &[&str], small: &[&str]) -> Vec<usize> {
    let mut chosen: Vec<usize> = match FORMATS.iter().find(|endings| large.iter().any(|name| ends(name, endings))) {
        Some(endings) => {
            let of_format: Vec<usize> = (0..large.len()).filter(|at| ends(large[*at], endings)).collect();
            let stems: Vec<String> = small.iter().chain(large).filter_map(|name| stem(name, endings)).collect();
            let named: Vec<usize> =
                of_format.iter().copied().filter(|at| stems.iter().any(|stem| is_shard(large[*at], stem))).collect();
            if named.is_empty() { of_format } else { named }
        }
        None => (0..large.len()).collect(),
    };
    chosen.sort_by(|a, b| natural(large[*a], large[*b]));
    chosen
}

/// True if the folder looks like a model: a configuration or weights.
pub fn is_model(names: &[&str]) -> bool {
    names.iter().any(|name| *name == "config.json" || FORMATS[..2].iter().any(|endings| ends(name, endings)))
}

/// True for a file that a program reads before it loads a model's weights.
pub fn announces(name: &str) -> bool {
    matches!(name, "config.json" | "model_index.json" | "params.json") || name.ends_with(INDEX)
}

fn ends(name: &str, endings: &[&str]) -> bool {
    endings.iter().any(|ending| name.ends_with(ending))
}

/// `model` for `model.safetensors.index.json`: shards are named `model-00001-of-00002.safetensors`.
fn stem(name: &str, endings: &[&str]) -> Option<String> {
    let name = name.strip_suffix(INDEX)?;
    endings.iter().find_map(|ending| name.strip_suffix(ending)).map(|stem| format!("{stem}-"))
}

fn is_shard(name: &str, stem: &str) -> bool {
    name.strip_prefix(stem).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Numbers inside names compare as numbers: shard 2 before shard 10.
fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    let key = |text: &str| -> Vec<(String, u64)> {
        let mut out = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let words = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let digits = rest[words..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |len| words + len);
            out.push((rest[..words].to_string(), rest[words..digits].parse().unwrap_or(u64::MAX)));
            rest = &rest[digits..];
        }
        out
    };
    key(a).cmp(&key(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(large: &[&str], small: &[&str]) -> Vec<String> {
        ahead(large, small).into_iter().map(|at| large[at].to_string()).collect()
    }

    #[test]
    fn the_index_names_the_shards() {
        let large = [
            "consolidated.safetensors",
            "model-00010-of-00010.safetensors",
            "model-00002-of-00010.safetensors",
            "pytorch_model.bin",
        ];
        assert_eq!(
            names(&large, &["model.safetensors.index.json"]),
            ["model-00002-of-00010.safetensors", "model-00010-of-00010.safetensors"]
        );
        assert_eq!(names(&large, &["config.json"]).len(), 3, "without an index every file of the best format");
    }

    #[test]
    fn the_best_format_that_is_there() {
        assert_eq!(names(&["a.gguf", "b.bin"], &[]), ["a.gguf"]);
        assert_eq!(names(&["x10.bin", "x9.bin", "notes.txt"], &[]), ["x9.bin", "x10.bin"]);
        assert_eq!(names(&["b.dat", "a.dat"], &[]), ["a.dat", "b.dat"]);
    }

    #[test]
    fn model_folders() {
        assert!(is_model(&["config.json"]) && is_model(&["a.gguf"]));
        assert!(!is_model(&["readme.md", "data.bin"]) && !is_model(&[]));
    }
}
