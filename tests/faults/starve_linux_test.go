package faults_test

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("starving", starving) }

const starvedPause = 100 * time.Millisecond

// starving is a manager that prints its spawns. Its first argument is the user
// that it becomes, or ""; the others are a Command, if any.
func starving() {
	if uid, _ := strconv.Atoi(os.Args[1]); uid > 0 && !prefork.IsWorker() {
		if err := syscall.Setuid(uid); err != nil {
			testprog.Print("setuid: %v", err)
			os.Exit(1)
		}
	}
	cfg := prefork.Config{
		MaxWorkers: 2, ErrRespawnInterval: starvedPause,
		TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: syscall.SIGUSR2}, usr1: {}, syscall.SIGWINCH: {}, syscall.SIGUSR2: {}},
		AfterSpawn:  func(_ *prefork.Manager, pid int) { testprog.Print("spawned %d", pid) },
		Observe: func(ev prefork.Event) {
			switch ev := ev.(type) {
			case prefork.SpawnFailedEvent:
				testprog.Print("failed, again in %v: %v", ev.Retry, ev.Err.Err)
			case prefork.ExitEvent:
				testprog.Print("gone %d", ev.Exit.PID)
			case prefork.SignalEvent:
				var usage unix.Rusage
				unix.Getrusage(unix.RUSAGE_SELF, &usage)
				switch ev.Received {
				case syscall.SIGUSR2:
					testprog.Print("%d threads at once", threadsAtOnce(4))
				case usr1:
					testprog.Print("cpu %d", time.Duration(usage.Utime.Nano()+usage.Stime.Nano()))
				case syscall.SIGWINCH:
					if os.Args[1] == "memory" {
						refuseMemory()
						break
					}
					toggleProcesses()
				}
			}
		},
	}
	if len(os.Args) > 2 {
		cfg.Command = os.Args[2:]
	}
	pm := testprog.NewManager(cfg)
	pm.Run(context.Background(), func(w *prefork.Worker) error {
		c := make(chan os.Signal, 10)
		signal.Notify(c, syscall.SIGUSR2)
		ctx := w.Context()
		testprog.Print("worker %d", os.Getpid())
		for {
			select {
			case <-c:
				testprog.Print("received")
			case <-ctx.Done():
				return nil
			}
		}
	})
}

// toggleProcesses removes the right of this process to start others, or
// restores it.
func toggleProcesses() {
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NPROC, &limit)
	if limit.Cur == 1 {
		limit.Cur = limit.Max
	} else {
		limit.Cur = 1
	}
	unix.Setrlimit(unix.RLIMIT_NPROC, &limit)
	testprog.Print("limit %d", limit.Cur)
}

// refuseMemory makes the kernel refuse this process further processes, but not
// threads, with ENOMEM.
func refuseMemory() {
	const load, equal, set, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	testprog.InstallFilter([]unix.SockFilter{
		{Code: load, K: 0},
		{Code: equal, K: unix.SYS_CLONE, Jf: 3},
		{Code: load, K: 16}, // the lower half of the first argument
		{Code: set, K: unix.CLONE_THREAD, Jt: 1},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOMEM)},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	})
	testprog.Print("limit 0")
}

// cpu returns the processor time of the manager.
func cpu(p *preforktest.Program) time.Duration {
	p.Signal(usr1)
	n, _ := strconv.ParseInt(p.Expect(`^cpu (\d+)$`)[1], 10, 64)
	return time.Duration(n)
}

// testStarved starves a manager with two workers of a resource and restores it.
// The manager still reaps, signals and stops workers. It retries with a growing
// delay, and spawns within one delay after the restoration.
func testStarved(t *testing.T, p *preforktest.Program, starve func() (restore func())) {
	t.Helper()
	worker := p.ExpectN(2, `^worker (\d+)$`)[1][1]
	pid, _ := strconv.Atoi(worker)
	before, began := cpu(p), time.Now()
	restore := starve()
	syscall.Kill(pid, syscall.SIGKILL)
	p.Expect(`^gone ` + worker + `$`)
	var last []string
	for range 5 { // 100, 200 … 1600 ms
		last = p.Expect(`^failed, again in (\S+): (.*)$`)
	}
	retry, err := time.ParseDuration(last[1])
	if err != nil || retry != 16*starvedPause {
		t.Errorf("after five failures: %v", last)
	}
	p.Signal(hup)
	p.Expect(`^received$`)
	used, took := cpu(p)-before, time.Since(began)
	t.Logf("%s: %v of processor time in %v", last[2], used, took.Round(time.Millisecond))
	if used > took/4 {
		t.Errorf("%v of processor time in %v: it spins", used, took)
	}
	restore()
	restored := time.Now()
	p.ExpectN(2, `^(spawned|worker) \d+$`)
	if took := time.Since(restored); took > retry+5*time.Second {
		t.Errorf("the next worker was spawned after %v, the pause is %v", took, retry)
	}
	starve()
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}

// The kernel has no memory for another process. This filter cannot be removed
// again.
func TestStarvedOfMemory(t *testing.T) {
	if !testprog.CanFilter {
		preforktest.Skipf(t, "the seccomp filter of this test is written for amd64 and arm64")
	}
	p := preforktest.Start(t, "starving", "memory")
	worker := p.ExpectN(2, `^worker (\d+)$`)[1][1]
	pid, _ := strconv.Atoi(worker)
	p.Signal(syscall.SIGWINCH)
	p.Expect(`^limit 0$`)
	before, began := cpu(p), time.Now()
	syscall.Kill(pid, syscall.SIGKILL)
	p.ExpectN(5, `^failed, again in \S+: .*cannot allocate memory$`)
	p.Signal(hup)
	p.Expect(`^received$`)
	used, took := cpu(p)-before, time.Since(began)
	t.Logf("%v of processor time in %v", used, took.Round(time.Millisecond))
	if used > took/4 {
		t.Errorf("%v of processor time in %v: it spins", used, took)
	}
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}

func TestStarvedOfFiles(t *testing.T) {
	p := preforktest.Start(t, "starving", "")
	testStarved(t, p, p.StarveFiles)
}

func TestStarvedOfProcesses(t *testing.T) {
	p := preforktest.Start(t, "starving", "")
	testStarved(t, p, p.StarveProcesses)
}

// The threads that the Go runtime may need at the limit exist already.
// Otherwise the program would die.
func TestThreadsAtTheLimit(t *testing.T) {
	p := preforktest.Start(t, "starving", "")
	p.ExpectN(2, `^worker \d+$`)
	restore := p.StarveProcesses()
	for range 20 {
		p.Signal(syscall.SIGUSR2)
		p.Expect(`^4 threads at once$`)
	}
	restore()
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
}

// threadsAtOnce runs n goroutines that hold a thread each at the same time.
func threadsAtOnce(n int) int {
	var all, done sync.WaitGroup
	all.Add(n)
	for range n {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			all.Done()
			all.Wait()
		})
	}
	done.Wait()
	return n
}

// The limit of a user's processes does not hold for root.
func TestStarvedByLimitOfUser(t *testing.T) {
	if os.Geteuid() != 0 {
		preforktest.Skipf(t, "to become another user takes root")
	}
	p := preforktest.Start(t, "starving", "54321")
	toggle := func() {
		p.Signal(syscall.SIGWINCH)
		p.Expect(`^limit \d+$`)
	}
	testStarved(t, p, func() func() {
		toggle()
		return toggle
	})
}

// The file of a Command, which each spawn looks up, disappears.
func TestStarvedOfProgram(t *testing.T) {
	sleep := t.TempDir() + "/sleep"
	install := func() {
		t.Helper()
		script := "#!/bin/sh\ntrap exit TERM; trap 'echo received' USR2; echo worker $$; while :; do sleep 0.1; done\n"
		if err := os.WriteFile(sleep, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	install()
	p := preforktest.New(t, "starving", "", sleep)
	p.Start()
	testStarved(t, p, func() func() {
		if err := os.Remove(sleep); err != nil {
			t.Fatal(err)
		}
		return install
	})
}
