//! The functions of the C library that this library takes the place of: one file per family.
//!
//! Called by the program. A hook decodes its arguments, asks, and answers; logic lives in the files beside this
//! folder. While the library is inert a hook is one relaxed load and a jump to the real function.

/// Defines exported functions. The block runs only while the library is active.
macro_rules! hooks {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $active:block)*) => {$(
        #[unsafe(no_mangle)]
        pub(crate) extern "C-unwind" fn $name($($arg: $ty),*) -> $ret {
            if !$crate::active::is_wanted() {
                return $crate::real::$name($($arg),*);
            }
            $active
        }
    )*};
}

/// What a system call takes.
type Arguments = [usize; 6];

mod aio;
mod attribute;
mod by_path;
mod copy;
mod dir;
mod dup;
mod filled;
mod fs;
mod link;
mod map;
mod names;
mod open;
mod read;
mod renewed;
mod seek;
mod spawn;
mod stat;
mod stdin;
mod stdio;
mod syscall;
mod user;
mod walk;
mod whole;
mod write;

pub(crate) use spawn::resolve_jumps;
pub(crate) use stdin::{give_back as give_stdin_back, redirect_stdin};
