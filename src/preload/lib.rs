//! `libossc_preload.so`: the constructor and the version symbols. Set in LD_PRELOAD; without
//! ENABLE_CONNECTOR it does nothing but one relaxed load per hooked call. No logic lives here.

mod above;
mod active;
mod attach;
mod by_name;
mod copy;
mod descriptors;
mod early;
mod engine_name;
mod environ;
mod failed;
mod file;
mod fills;
mod folder;
mod handle;
mod hidden;
mod hook;
mod identity;
mod init;
mod join;
mod listing;
mod log;
mod marks;
mod memory;
mod memory_cache;
mod memory_file;
mod missing;
mod model_dir;
mod numbers;
mod objects;
mod outcome;
mod parts;
mod past;
mod process;
mod real;
mod say;
mod seen;
mod session;
mod silent;
mod start;
mod started;
mod streams;
mod taken;
mod theirs;
mod uses;
mod version;
mod waiting;

/// Runs before `main`, alone.
extern "C" fn start_up() {
    real::resolve();
    hook::resolve_jumps();
    say::remember();
    init::run();
    if active::is_active() {
        // A panic says nothing on the host's stderr; the hook that met it answers EIO.
        std::panic::set_hook(Box::new(|_| {}));
        real::at_fork_in_child(forked);
        hook::redirect_stdin();
    }
}

extern "C" fn forked() {
    process::own();
    memory::leave_to_parent();
}

/// Runs after the program's own exit handlers.
extern "C" fn wind_up() {
    hook::give_stdin_back();
}

#[used]
#[unsafe(link_section = ".init_array")]
static START_UP: extern "C" fn() = start_up;

#[used]
#[unsafe(link_section = ".fini_array")]
static WIND_UP: extern "C" fn() = wind_up;

/// The version as a symbol's name: `nm -D libossc_preload.so | grep version`.
#[used]
#[unsafe(no_mangle)]
pub static ossc_version_2_0_0: u8 = 1;

/// The version as text with a final NUL, for `strings` and debuggers.
#[used]
#[unsafe(no_mangle)]
pub static ossc_connector_version: [u8; VERSION.len()] = {
    let mut text = [0; VERSION.len()];
    let mut at = 0;
    while at < text.len() {
        text[at] = VERSION.as_bytes()[at];
        at += 1;
    }
    text
};
const VERSION: &str = concat!("oss-connector ", env!("CARGO_PKG_VERSION"), "\0");
const _: () =
    assert!(matches!(env!("CARGO_PKG_VERSION").as_bytes(), b"2.0.0"), "rename the version symbol with the version");
