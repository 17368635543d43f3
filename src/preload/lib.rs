//! `libossc_preload.so`: the constructor and the version symbols. Set in LD_PRELOAD; without
//! ENABLE_CONNECTOR it does nothing but one relaxed load per hooked call. No logic lives here.

mod client;
mod environ;
mod start;
