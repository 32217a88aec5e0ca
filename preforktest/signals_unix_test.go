//go:build unix

package preforktest

import (
	"fmt"
	"os/signal"
	"syscall"
	"testing"
)

func init() {
	Register("ignores", func() { fmt.Println("ignored:", signal.Ignored(syscall.SIGHUP)) })
}

// Programs read SIGHUP even if the tests run under nohup.
func TestIgnoredSignals(t *testing.T) {
	defer signal.Reset(syscall.SIGHUP)
	signal.Ignore(syscall.SIGHUP)
	Start(t, "ignores").Expect("^ignored: true$")
	restoreIgnoredSignals()
	Start(t, "ignores").Expect("^ignored: false$")
	// In this process the signal has no effect.
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}
