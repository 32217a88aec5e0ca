//go:build unix

// Package faults_test tests managers under faults: random events, exhausted
// limits, signals at any moment, and process 1.
package faults_test

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
