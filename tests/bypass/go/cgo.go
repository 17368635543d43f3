package main

// With CGO_ENABLED=1 this links libc, so that a preloaded library is loaded; Go still calls the kernel itself.
// Without cgo this file is left out.

// #include <unistd.h>
import "C"

func init() { _ = C.getpid() }
