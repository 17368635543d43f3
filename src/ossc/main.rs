//! `ossc`: see the library of the same folder. `ossc engine` is started by the preload library and takes its
//! settings from it, never from a person.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ossc_engine::main()
}
