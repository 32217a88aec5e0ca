//go:build linux

package main

import (
	"log"

	"github.com/prefork-go/prefork"
)

// setStandby has workers started ahead.
func setStandby(cfg *prefork.Config, n int) {
	if n > 0 {
		log.Fatal("web: this version of the library has no Config.Standby")
	}
}
