//go:build !linux

// Bench measures on Linux only: it reads /proc and places processes on processors.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: it measures on Linux only")
	os.Exit(1)
}
