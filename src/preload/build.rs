//! How the linker makes libossc_preload.so. Run by cargo before it compiles the crate; looks at nothing.

fn main() {
    // Slots, fork handlers and maps point into the library for as long as the process lives: dlclose must not unload it.
    println!("cargo:rustc-link-arg-cdylib=-Wl,-z,nodelete");
    // A hook that calls another one means its own, not that of a library preloaded before this one, which may have led
    // the call here: `statfs` as `syscall(SYS_statfs, ...)`, say. Not `-Bsymbolic-functions`, which zig does not know; the
    // only exported data is the version, to which nothing refers.
    println!("cargo:rustc-link-arg-cdylib=-Wl,-Bsymbolic");
    println!("cargo:rerun-if-changed=build.rs");
}
