//go:build !linux

// Bench requires Linux: it reads /proc and pins processes to processors.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: unsupported system: run it on Linux")
	os.Exit(1)
}
