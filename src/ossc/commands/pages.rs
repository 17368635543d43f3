//! The man pages and the shell completions of `ossc`, made out of the definitions of its command line.
//!
//! Called by the hidden command `ossc pages FOLDER`, which `dist/package` runs when it makes the packages. It reads
//! neither settings nor environment, so one program always writes the same bytes. It never overwrites the definitions
//! with text of its own: what a page says of a command or an option is what `--help` says.

use crate::commands::output;
use clap::Command;
use clap_complete::generate_to;
use clap_complete::shells::{Bash, Fish, Zsh};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::io;
use std::path::Path;
use std::process::ExitCode;

const NAME: &str = "ossc";
const MANUAL: &str = "OSS Connector";
/// What the page of the whole command says beyond `--help`: the files, and where to read on.
const FILES: [(&str, &str); 3] = [
    ("/etc/oss-connector/config.json", "The configuration file; OSSC_CONFIG names another one."),
    ("/var/log/oss-connector/", "The log and the audit file, unless the configuration names other places."),
    ("/usr/local/lib/libossc_preload.so", "The library that LD_PRELOAD names."),
];
const READ_ON: &str = "ossc config --markdown shows all keys and variables, ossc errors what can go wrong. The package \
                       has more documents in /usr/share/doc/oss-connector-lib.";

/// Runs the command.
pub fn main(all: &Command, folder: &Path) -> ExitCode {
    match write(all, folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            output::tell(&format!("ossc pages: {}: {e}", folder.display()));
            ExitCode::FAILURE
        }
    }
}

fn write(all: &Command, folder: &Path) -> io::Result<()> {
    let command = visible(all);
    generate_to(Bash, &mut command.clone(), NAME, folder)?;
    generate_to(Zsh, &mut command.clone(), NAME, folder)?;
    generate_to(Fish, &mut command.clone(), NAME, folder)?;
    for (name, page) in pages(command)? {
        std::fs::write(folder.join(name), page)?;
    }
    Ok(())
}

/// The command without its hidden subcommands, which completions would offer.
fn visible(all: &Command) -> Command {
    let shown = all.get_subcommands().filter(|c| !c.is_hide_set()).cloned();
    Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about(all.get_about().cloned().unwrap_or_default())
        .subcommand_required(true)
        .subcommands(shown)
}

/// File names and contents: one page for the whole, one for each subcommand.
fn pages(command: Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let source = format!("ossc {}", env!("CARGO_PKG_VERSION"));
    let mut made = Vec::new();
    let subcommands: Vec<Command> = command.get_subcommands().cloned().collect();
    for page in std::iter::once(command).chain(subcommands) {
        let is_whole = page.has_subcommands();
        let man = Man::new(page).manual(MANUAL).source(&source);
        let mut text = Vec::new();
        man.render(&mut text)?;
        if is_whole {
            text.extend_from_slice(files_section().to_roff().as_bytes());
        }
        made.push((man.get_filename(), text));
    }
    Ok(made)
}

fn files_section() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["FILES"]);
    for (file, what) in FILES {
        roff.control("TP", []).text([bold(file)]).text([roman(what)]);
    }
    roff.control("SH", ["SEE ALSO"]).text([roman(READ_ON)]);
    roff
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn all() -> Command {
        crate::Arguments::command()
    }

    #[test]
    fn each_visible_subcommand_has_a_page_and_no_hidden_one_has() {
        let names: Vec<String> = pages(visible(&all())).unwrap().into_iter().map(|(name, _)| name).collect();
        for subcommand in all().get_subcommands() {
            let page = format!("ossc-{}.1", subcommand.get_name());
            assert_eq!(names.contains(&page), !subcommand.is_hide_set(), "{page} in {names:?}");
        }
        assert!(names.contains(&"ossc.1".to_string()), "{names:?}");
    }

    #[test]
    fn a_page_says_what_help_says() {
        for (name, text) in pages(visible(&all())).unwrap() {
            let text = String::from_utf8(text).unwrap().replace(r"\*(Aq", "'").replace('\\', "");
            let subcommand = name.strip_prefix("ossc-").and_then(|n| n.strip_suffix(".1"));
            let shown = subcommand.map_or(all(), |s| all().find_subcommand(s).unwrap().clone());
            let about = shown.get_about().unwrap().to_string();
            assert!(text.contains(&about), "{name} has no {about:?}");
            for option in shown.get_arguments().filter_map(|a| a.get_long()) {
                assert!(text.contains(&format!("--{option}")), "{name} has no --{option}");
            }
        }
    }

    #[test]
    fn completions_offer_what_is_visible_alone() {
        let folder = std::env::temp_dir().join(format!("ossc-pages-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        write(&all(), &folder).unwrap();
        let made = ["ossc.bash", "_ossc", "ossc.fish"].map(|name| std::fs::read_to_string(folder.join(name)).unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
        for text in made {
            assert!(text.contains("doctor") && text.contains("model-dir"), "{text}");
            assert!(!text.contains("engine process") && !text.contains("pages"), "{text}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let missing = std::env::temp_dir().join(format!("ossc-no-pages-{}", std::process::id()));
        assert_eq!(write(&all(), &missing).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
