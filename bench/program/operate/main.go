//go:build linux

// Operate is the program library that also calls ops.Attach.
package main

import (
	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/bench/program/workers"
	"github.com/prefork-go/prefork/ops"
)

func main() {
	workers.Run(func(*prefork.Config) func(*prefork.Manager) func() {
		return func(pm *prefork.Manager) func() { return ops.Attach(pm) }
	})
}
