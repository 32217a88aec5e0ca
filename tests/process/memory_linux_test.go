package process_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("hungry", hungry) }

const hungryLimit = 256 << 20

// hungry is a manager whose workers use more and more memory. The first
// argument is the rate in MiB a second; zero means no bound. The second
// argument, if any, is a cgroup that the manager moves itself into.
func hungry() {
	if !prefork.IsWorker() && len(os.Args) > 2 {
		if err := os.WriteFile(os.Args[2]+"/cgroup.procs", []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			testprog.Print("cannot enter the cgroup: %v", err)
		}
	}
	rate, _ := strconv.Atoi(os.Args[1])
	cfg := prefork.Config{MaxWorkers: 1, ErrRespawnInterval: -1, Observe: func(ev prefork.Event) {
		if ev, ok := ev.(prefork.ExitEvent); ok {
			testprog.Print("gone %d: %v, %v", ev.Exit.Ordinal, ev.Exit.Reason, ev.Exit.Status)
		}
	}}
	if rate > 0 {
		cfg.Recycle.MaxMemory = hungryLimit / 4
	}
	pm := testprog.NewManager(cfg)
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		if rate == 0 && w.Ordinal() == 2 { // another process kills it
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		var kept [][]byte
		for ctx.Err() == nil {
			more := make([]byte, 1<<20)
			for i := 0; i < len(more); i += os.Getpagesize() {
				more[i] = 1 // only pages that were written to are in memory
			}
			if kept = append(kept, more); len(kept) == hungryLimit>>20 {
				testprog.Print("worker %d has reached its limit", w.Ordinal())
			}
			if rate > 0 {
				time.Sleep(time.Second / time.Duration(rate))
			}
		}
		return nil
	})
}

// memoryCgroup returns a cgroup that limits the memory of its processes, or
// skips the test.
func memoryCgroup(t *testing.T, limit int) (dir string) {
	t.Helper()
	for parent, file := range map[string]string{"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"} {
		dir = filepath.Join(parent, "prefork-test-"+strconv.Itoa(os.Getpid()))
		if _, err := os.Stat(filepath.Join(parent, "cgroup.procs")); err != nil || os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			preforktest.WaitFor(t, "the cgroup to be empty", func() bool {
				err := os.Remove(dir)
				return err == nil || errors.Is(err, fs.ErrNotExist)
			})
		})
		if os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0) == nil {
			return dir
		}
	}
	preforktest.Skipf(t, "no cgroup with the memory controller can be made here (by root, where /sys/fs/cgroup can be written)")
	return ""
}

// A worker that the OOM killer kills is reported as such. A worker that another
// process kills is not.
func TestKilledForMemory(t *testing.T) {
	p := preforktest.Start(t, "hungry", "0", memoryCgroup(t, hungryLimit/2))
	p.Expect(`^gone 1: out of memory, SIGKILL$`)
	p.Expect(`^gone 2: crashed, SIGKILL$`)
	p.Expect(`^gone 3: out of memory, SIGKILL$`)
	p.Signal(term)
	p.Wait()
	if text := strings.Join(p.Lines(), "\n"); !strings.Contains(text, `reason="out of memory"`) {
		t.Errorf("the log does not say so:\n%s", text)
	}
}

// A worker that leaks is replaced before it reaches its limit, which takes
// about three seconds here.
func TestLeakIsRecycledInTime(t *testing.T) {
	var cgroup []string
	if os.Getuid() == 0 {
		cgroup = append(cgroup, memoryCgroup(t, 3*hungryLimit))
	}
	p := preforktest.Start(t, "hungry", append([]string{"80"}, cgroup...)...)
	p.ExpectN(testprog.Times(20), `^gone \d+: recycled, exit code 0$`)
	p.Signal(term)
	p.Wait()
	for _, line := range p.Lines() {
		if strings.Contains(line, "reached its limit") || strings.Contains(line, "out of memory") {
			t.Error(line)
		}
	}
}
