package main

import (
	"runtime"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

// The program of exec has the death signal that this process was started with.
func TestExecKeepsDeathSignal(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		preforktest.Skipf(t, "the number of prctl in the script is that of amd64")
	}
	perl := preforktest.NeedCommand(t, "perl", "Debian: apt-get install perl")
	for range 5 {
		p := preforktest.New(t, "prefork", "exec", "-P", perl, "-e", `my $sig = pack("i", 0); syscall(157, 2, $sig); print "signal ", unpack("i", $sig), "\n"`)
		p.Cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGUSR1}
		runtime.LockOSThread() // its end would be the death of the parent
		p.Start()
		p.Expect("^signal 10$")
		p.Wait()
		runtime.UnlockOSThread()
	}
}
