//! The constructor's decision: is there anything to do in this process, and is there an engine to do it with.
//!
//! Called by `lib.rs`, once, before `main`. It takes what is needed of the environment; a primary makes sure that an
//! engine runs. It never waits for an engine of another process: that comes with the first file of ours (`attach`).

use crate::active;
use crate::attach::{self, say};
use crate::environ;
use crate::hidden;
use crate::model_dir;
use crate::process;
use crate::start::{self, FirstWord};
use ossc_cache::rundir;

/// Constructor: takes what is needed of the environment, and as a primary makes sure an engine runs.
/// A primary that cannot start says why and ends the program, as the product does.
pub(crate) fn run() {
    let role = environ::role();
    match role {
        environ::Role::Inert => return,
        // It looks at engines and starts none; what it starts is a program like any other.
        _ if environ::is_own_command() && !environ::is_warm() => return,
        // To go on would be to show placeholders as empty files.
        environ::Role::Unknown => refuse(b"ENABLE_CONNECTOR is neither 1 (primary) nor 2 (secondary)"),
        _ => {}
    }
    let primary = role == environ::Role::Primary;
    let folder = match environ::capture() {
        Ok(id) => id,
        Err(environ::Unusable::Unreachable) => {
            // Every look at MODEL_DIR fails for this user without the library too: nothing to serve, nothing to end.
            if primary {
                say(&[b"oss connector: this user may not reach MODEL_DIR: going on without it\n"]);
            }
            return;
        }
        Err(why) if primary => refuse(match why {
            environ::Unusable::NoModelDir => {
                b"MODEL_DIR not set: set it to the folder that the program loads the model from"
            }
            environ::Unusable::BadModelDir | environ::Unusable::Unreachable => {
                b"failed to download metadata: MODEL_DIR is not a folder and cannot be made: name another one, or let this user write where it is to be"
            }
            environ::Unusable::NoRunFolder => rundir::NO_FOLDER.as_bytes(),
        }),
        Err(why) => {
            let why: &[u8] = match why {
                environ::Unusable::NoModelDir => b"there is no MODEL_DIR",
                environ::Unusable::NoRunFolder => b"no run folder can be used",
                _ => b"MODEL_DIR is not a folder and cannot be made",
            };
            say(&[b"oss connector: ", why, b": ENABLE_CONNECTOR=2 does nothing in this program\n"]);
            return;
        }
    };
    if let Some(why) = hidden::find() {
        // To go on would be to show placeholders as empty files.
        refuse(why.as_bytes());
    }
    model_dir::remember(&folder);
    process::own();
    attach::begin();
    if primary && attach::engine_runs() {
        if let Some(why) = attach::is_another() {
            refuse(why);
        }
        attach::tell_credentials();
        attach::offer_streams();
    } else if primary {
        let start = attach::start_engine(-1);
        match start.word {
            FirstWord::Failed | FirstWord::Silent => refuse(start.text()),
            FirstWord::Ready if !start.text().is_empty() => say(&[b"oss connector: ", start.text(), b"\n"]),
            _ => {}
        }
    }
    active::begin();
}

fn refuse(reason: &[u8]) -> ! {
    say(&[b"failed to launch oss connector: ", reason, b"\n"]);
    start::exit_now(1)
}
