//go:build unix

// Package sockets_test tests the sockets that workers inherit: every network,
// sockets given from outside, and a listener for each worker.
package sockets_test

import (
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

// programs are the programs that the test binary can run. Each test file adds its
// own.
var programs = map[string]func(){}

func TestMain(m *testing.M) { preforktest.Main(m, programs) }

const (
	hup  = syscall.SIGHUP
	term = syscall.SIGTERM
	usr1 = syscall.SIGUSR1
)
