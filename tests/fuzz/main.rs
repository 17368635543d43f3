//! Runs one fuzz target, named by OSSC_FUZZ_TARGET, under libFuzzer. Started by `ci/bar wire 5`;
//! the targets themselves are beside the code that they try (net, sign, cache, src/conf and src/ossc: fuzz.rs).
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("OSSC_FUZZ_TARGET").unwrap_or_default();
    match name.as_str() {
        "head" => ossc_net::fuzz::head,
        "list" => ossc_net::fuzz::list,
        "fault" => ossc_net::fuzz::fault,
        "key" => ossc_net::fuzz::key,
        "conn" => ossc_net::fuzz::conn,
        "issued" => ossc_sign::fuzz::issued,
        "packet" => ossc_cache::fuzz::packet,
        "board" => ossc_cache::fuzz::board,
        "url" => ossc_conf::fuzz::url,
        "config" => ossc_conf::fuzz::config,
        "page" => ossc_engine::fuzz::page,
        "line" => ossc_engine::fuzz::line,
        _ => {
            eprintln!("OSSC_FUZZ_TARGET={name:?}: name one of the targets of tests/fuzz/README.md");
            std::process::exit(2)
        }
    }
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
