//go:build unix

package preforktest

import (
	"fmt"
	"os/signal"
	"syscall"
	"testing"
)

var _ = register("ignores", func() { fmt.Println("ignored:", signal.Ignored(syscall.SIGHUP)) })

// Under nohup, too, programs get a SIGHUP.
func TestIgnoredSignals(t *testing.T) {
	defer signal.Reset(syscall.SIGHUP)
	signal.Ignore(syscall.SIGHUP)
	Start(t, "ignores").Expect("^ignored: true$")
	unignore()
	Start(t, "ignores").Expect("^ignored: false$")
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil { // does nothing here, as before
		t.Fatal(err)
	}
}
