//! Which folders of this crate import which: read from the sources, so that no arrow is drawn by mistake.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What each folder may import of the others; a wing imports what the wings share, and no other wing.
const ARROWS: &[(&str, &[&str])] = &[
    ("lock", &[]),
    ("folder_files", &[]),
    ("order", &[]),
    ("journal", &["lock"]),
    ("credentials", &["lock"]),
    ("work/shared", &["lock", "folder_files"]),
    ("work/scheduling", &["credentials", "lock", "work/shared"]),
    ("work/transfers", &["journal", "lock", "work/shared"]),
    ("work/residency", &["lock", "folder_files", "work/shared"]),
    ("work/objects", &["journal", "lock", "order", "work/shared"]),
    (
        "work",
        &[
            "journal",
            "lock",
            "order",
            "work/objects",
            "work/residency",
            "work/scheduling",
            "work/shared",
            "work/transfers",
        ],
    ),
    ("mirror", &["lock", "order", "folder_files", "work", "work/residency", "work/scheduling", "work/shared"]),
    ("process", &["credentials", "folder_files", "journal", "lock", "mirror", "order", "work", "work/shared"]),
    ("engine", &["credentials", "journal", "mirror", "order", "folder_files", "process", "work", "work/shared"]),
    ("fuzz", &["journal", "process"]),
    ("commands", &["credentials", "folder_files", "journal", "lock", "mirror", "process", "work/shared"]),
];

/// The folder of a path, which begins behind `crate::` or behind the crate's own folder.
fn room(path: &str) -> String {
    let wings = ["shared", "scheduling", "transfers", "residency", "objects"];
    let mut parts = path.split(['/', ':']).filter(|part| !part.is_empty());
    let first = parts.next().unwrap_or_default().trim_end_matches(".rs").to_string();
    let second = parts.next().map(|part| part.trim_end_matches(".rs")).filter(|part| wings.contains(part));
    second.filter(|_| first == "work").map_or(first.clone(), |wing| format!("{first}/{wing}"))
}

/// The folders that a file imports. Tests of their own may import what they like.
fn imports(text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut rooms = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        let end = path.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(path.len());
        let (name, rest) = path.split_at(end);
        match rest.strip_prefix('{') {
            Some(group) => {
                let names = group.split('}').next().unwrap_or_default().split(',');
                rooms.extend(names.map(|one| room(&format!("{name}{}", one.trim()))));
            }
            None => drop(rooms.insert(room(name))),
        }
    }
    rooms
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let inside = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(inside).filter(|path| path.extension().is_some_and(|ending| ending == "rs")).collect()
}

/// Imports that `ARROWS` does not have.
fn undrawn(path: &str, text: &str) -> Vec<String> {
    let own = room(path);
    let allowed = ARROWS.iter().find(|(from, _)| *from == own).map_or(&[][..], |(_, to)| to);
    let is_undrawn = |to: &String| *to != own && !allowed.contains(&to.as_str());
    imports(text).into_iter().filter(is_undrawn).map(|to| format!("{path} imports {to}")).collect()
}

#[test]
fn folders_import_only_what_is_drawn() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    let mut wrong = Vec::new();
    for file in files(root) {
        let path = file.strip_prefix(root).unwrap().to_str().unwrap();
        if ["lib.rs", "main.rs", "work/still.rs"].contains(&path) || path.ends_with("_tests.rs") {
            continue;
        }
        seen += 1;
        wrong.extend(undrawn(path, &std::fs::read_to_string(&file).unwrap()));
    }
    assert!(seen > 80, "only {seen} files: do they lie elsewhere now?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each arrow goes from a row to rows above it, so there is no circle; and what is not drawn is found.
#[test]
fn the_drawing_has_no_circle_and_tells_what_is_not_in_it() {
    for (at, (from, to)) in ARROWS.iter().enumerate() {
        let is_above = |to: &&str| ARROWS[..at].iter().any(|(above, _)| above == to);
        assert!(to.iter().all(is_above), "{from}");
    }
    let text = "use crate::work::objects::Objects;\nuse crate::lock::lock;\n";
    assert_eq!(undrawn("work/transfers/materialize.rs", text), ["work/transfers/materialize.rs imports work/objects"]);
    assert_eq!(undrawn("work/residency.rs", "fn f(work: &crate::work::Work) {}"), ["work/residency.rs imports work"]);
    assert_eq!(undrawn("work/objects.rs", "use crate::work::objects::verdict;"), Vec::<String>::new());
}
