package upgrade_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("started", started)
	preforktest.Register("crowded", crowded)
}

// started closes descriptor 3 in the manager, as a program does that reports its
// readiness there, and prints the files that it has at 3 and 8. Its argument
// makes it run below a reaper.
func started() {
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 1, Reaper: os.Args[1] == "reaper",
		TrapSignals: prefork.Signals{term: {Signal: term}, syscall.SIGUSR2: {Upgrade: true}},
	})
	if !prefork.IsWorker() {
		ready := os.NewFile(3, "ready")
		_, err := io.WriteString(ready, "ready\n")
		ready.Close()
		testprog.Print("manager %d: ready %v, 8 is %s", os.Getpid(), err, contentOf(8))
	}
	err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		testprog.Print("worker: 8 is %s", contentOf(8))
		<-w.Context().Done()
		return nil
	})
	testprog.Print("ended %v", err)
}

func contentOf(descriptor int) string {
	var b [9]byte
	n, err := syscall.Pread(descriptor, b[:], 0)
	if n <= 0 || err != nil {
		return "not the file"
	}
	return string(b[:n])
}

// Descriptors that the program was started with go to a successor, and a
// successor of that, at the same numbers. Workers do not get them. A successor
// finds the null device at a number that the program has closed.
func TestStartedDescriptors(t *testing.T) {
	for _, reaper := range []string{"", "reaper"} {
		dir := t.TempDir()
		secret, ready := filepath.Join(dir, "secret"), filepath.Join(dir, "ready")
		if err := os.WriteFile(secret, []byte("of start!"), 0o600); err != nil {
			t.Fatal(err)
		}
		p := preforktest.New(t, "started")
		p.Cmd = &exec.Cmd{Path: "/bin/sh", Args: []string{"sh", "-c", `exec "$0" "$1" 3>"$2" 8<"$3"`, p.Cmd.Path, reaper, ready, secret}, Env: p.Cmd.Env}
		p.Start()
		for i := range 3 {
			pid, _ := strconv.Atoi(p.Expect(`^manager (\d+): ready <nil>, 8 is of start!$`)[1])
			if i == 0 {
				p.ExpectAll(`^worker: 8 is not the file$`, `worker ready`)
			} else {
				p.ExpectAll(`^worker: 8 is not the file$`, `has taken over, shutting down`)
			}
			if i == 2 {
				syscall.Kill(pid, term)
			} else {
				syscall.Kill(pid, syscall.SIGUSR2)
			}
		}
		p.WaitGone()
		if text, err := os.ReadFile(ready); string(text) != "ready\n" || err != nil {
			t.Errorf("descriptor 3 was sent %q, %v", text, err)
		}
	}
}

// crowded runs with the null device at descriptor 60, and its argument as the limit
// of descriptors.
func crowded() {
	limit, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	if os.Getenv("CROWDED") == "" {
		null, err := os.Open(os.DevNull)
		for n := 3; n < 1024; n++ { // those of this test's own start
			syscall.CloseOnExec(n)
		}
		if err == nil {
			err = syscall.Dup3(int(null.Fd()), 60, 0)
		}
		if err == nil {
			err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: uint64(limit), Max: uint64(limit)})
		}
		if err == nil {
			err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), "CROWDED=1"))
		}
		log.Fatal(err)
	}
	pm := testprog.NewManager(prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, syscall.SIGUSR2: {Upgrade: true}}})
	if _, err := pm.Listen("tcp", "127.0.0.1:0"); err != nil {
		log.Fatal(err)
	}
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		testprog.Print("worker of %d: 60 is open %t", w.ManagerPID(), isOpen(60))
		<-w.Context().Done()
		return nil
	})
}

func isOpen(descriptor int) bool {
	var st syscall.Stat_t
	return syscall.Fstat(descriptor, &st) == nil
}

// A descriptor with a number near RLIMIT_NOFILE, as some shells leave it, keeps no
// worker and no successor from starting.
func TestStartedDescriptorNearLimit(t *testing.T) {
	p := preforktest.Start(t, "crowded", "64")
	p.Expect(fmt.Sprintf(`^worker of %d: 60 is open false$`, p.PID()))
	p.Signal(syscall.SIGUSR2)
	found := p.ExpectAll(`^worker of (\d+): 60 is open false$`, `successor has taken over`)
	successor, err := strconv.Atoi(found[0][1])
	if err != nil {
		t.Fatal(err)
	}
	syscall.Kill(successor, term)
	p.WaitGone()
}
