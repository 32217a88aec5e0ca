//go:build linux

// Library runs as many workers as its argument says. Programs operate and journal
// are the same, with more packages of the library.
package main

import (
	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/bench/program/workers"
)

func main() {
	workers.Run(func(*prefork.Config) func(*prefork.Manager) func() { return workers.Alone })
}
