package upgrade_test

import (
	"context"
	"io"
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

func init() { preforktest.Register("started", started) }

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
