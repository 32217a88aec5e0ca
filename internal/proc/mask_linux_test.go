package proc

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process blocks no signal, also if the manager's thread does, unless
// KeepMask is set. The thread's own mask stays.
func TestProcessBlocksNoSignal(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var usr1, old, after unix.Sigset_t
	usr1.Val[0] = 1 << (uint(syscall.SIGUSR1) - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &usr1, &old); err != nil {
		t.Fatal(err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	table := New(func(Note) {})
	defer table.Close()
	for _, keep := range []bool{false, true} {
		p, err := table.Start(1, Spec{Path: sleep, Args: []string{"sleep", "60"}, Files: []uintptr{0, 1, 2}, KeepMask: keep})
		if err != nil {
			t.Fatal(err)
		}
		status, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid()) + "/status")
		if err != nil {
			t.Fatal(err)
		}
		_, blocked, _ := strings.Cut(string(status), "SigBlk:\t")
		blocked, _, _ = strings.Cut(blocked, "\n")
		if got := strings.Trim(blocked, "0") != ""; got != keep {
			t.Errorf("KeepMask %t: blocked %s", keep, blocked)
		}
		p.Signal(syscall.SIGKILL)
		for range 500 {
			if _, _, ok := p.Reap(); ok {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	unix.PthreadSigmask(unix.SIG_SETMASK, nil, &after)
	if after.Val[0]&usr1.Val[0] == 0 {
		t.Error("the mask of the thread was changed")
	}
}
