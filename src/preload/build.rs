//! How the linker makes libossc_preload.so. Run by cargo before it compiles the crate; looks at nothing.

fn main() {
    // Slots, fork handlers and maps point into the library for as long as the process lives: dlclose must not unload it.
    println!("cargo:rustc-link-arg-cdylib=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
