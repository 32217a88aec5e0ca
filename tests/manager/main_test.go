//go:build unix

// Package manager_test tests a Manager on pretended processes, in bubbles of
// testing/synctest: the order and the time of everything that it does.
package manager_test

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
	usr2 = syscall.SIGUSR2
	kill = syscall.SIGKILL
)
