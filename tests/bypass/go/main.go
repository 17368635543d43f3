// Reads one file with Go's standard library and writes its bytes to standard output.
// Go issues system calls itself. Usage: reader read|readat|mmap FILE SIZE
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
)

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func main() {
	if len(os.Args) != 4 {
		os.Exit(2)
	}
	size, err := strconv.Atoi(os.Args[3])
	if err != nil {
		fail(err)
	}
	file, err := os.Open(os.Args[2])
	if err != nil {
		fail(err)
	}
	switch os.Args[1] {
	case "read":
		bytes, err := io.ReadAll(file)
		if err != nil {
			fail(err)
		}
		os.Stdout.Write(bytes)
	case "readat":
		bytes := make([]byte, size)
		got, err := file.ReadAt(bytes, 0)
		os.Stdout.Write(bytes[:got])
		if err != nil {
			fail(err)
		}
	case "mmap":
		bytes, err := syscall.Mmap(int(file.Fd()), 0, size, syscall.PROT_READ, syscall.MAP_PRIVATE)
		if err != nil {
			fail(err)
		}
		// Copied first: the touch must fail, not the write.
		copied := append([]byte(nil), bytes...)
		os.Stdout.Write(copied)
	default:
		os.Exit(2)
	}
}
