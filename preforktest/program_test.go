package preforktest

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func init() { Register("pool", pool) }

// pool starts copies of itself as workers. Only the pool holds the pipe that is
// their standard input. It exits on SIGTERM, after its workers. Its flags, which
// the workers get too, select a fault.
func pool() {
	var (
		n         = flag.Int("n", 0, "number of workers")
		leave     = flag.Bool("leave", false, "exit without stopping the workers")
		ignoreEOF = flag.Bool("ignore-eof", false, "workers ignore the exit of the pool")
		delay     = flag.Duration("delay", 0, "time between that exit and the exit of the workers")
		noOutput  = flag.Bool("no-output", false, "workers close their output")
		noID      = flag.Bool("no-id", false, "workers start without the ID of the Program")
		worker    = flag.Bool("worker", false, "run as a worker")
	)
	flag.Parse()
	if *worker {
		poolWorker(*ignoreEOF, *delay)
		return
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	r, w, _ := os.Pipe()
	var workers []*exec.Cmd
	for range *n {
		cmd := exec.Command(os.Args[0], append([]string{"-worker"}, os.Args[1:]...)...)
		cmd.Stdin = r
		if !*noOutput {
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		}
		if *noID {
			cmd.Env = []string{programVar + "=pool"}
		}
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		workers = append(workers, cmd)
		fmt.Println("worker", cmd.Process.Pid)
	}
	r.Close()
	fmt.Println("ready")
	<-stop
	if *leave {
		return
	}
	w.Close()
	for _, cmd := range workers {
		cmd.Wait()
	}
	fmt.Println("done")
}

func poolWorker(ignoreEOF bool, delay time.Duration) {
	fmt.Println("worker up", os.Getpid())
	io.Copy(io.Discard, os.Stdin)
	if ignoreEOF {
		waitUntilKilled()
	}
	time.Sleep(delay)
}

// waitUntilKilled waits for a signal that no test sends. Without Notify the
// program would die of "all goroutines are asleep".
func waitUntilKilled() {
	never := make(chan os.Signal, 1)
	signal.Notify(never, syscall.SIGHUP)
	<-never
}

func linuxOnly(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
}

func TestProgramWithWorkers(t *testing.T) {
	t.Parallel()
	p := Start(t, "pool", "-n", "3")
	up := p.ExpectN(3, `^worker up (\d+)$`)
	if runtime.GOOS == "linux" {
		left, err := p.Descendants()
		var got, want []string
		for _, proc := range left {
			got = append(got, fmt.Sprint(proc.PID))
		}
		for _, match := range up {
			want = append(want, match[1])
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) || err != nil {
			t.Errorf("descendants %v, %v, want %v", left, err, want)
		}
	}
	p.Signal(syscall.SIGTERM)
	p.Expect("^done$")
	if state := p.Wait(); !state.Success() {
		t.Error(state)
	}
	p.WaitGone()
	if left, err := p.Descendants(); len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Orphans of a killed program have time to exit.
func TestKillAndWaitGone(t *testing.T) {
	t.Parallel()
	ft := &fakeT{}
	ft.run(func() {
		p := Start(ft, "pool", "-n", "2", "-delay", "100ms")
		p.ExpectN(2, "^worker up")
		p.Kill()
		if state := p.Wait(); !killed(state) {
			t.Error(state)
		}
		p.Kill() // no failure
	})
	ft.wantErrors(t)

	p := Start(t, "pool", "-n", "2")
	p.ExpectN(2, "^worker up")
	killedAt := time.Now()
	p.Kill()
	if took := p.WaitGone().Sub(killedAt); took <= 0 {
		t.Errorf("gone after %v", took)
	}
}

// A program that is still running when the test ends is killed without an error.
func TestStopOfRunningProgram(t *testing.T) {
	t.Parallel()
	ft := &fakeT{}
	var p *Program
	ft.run(func() {
		p = Start(ft, "pool", "-n", "2", "-ignore-eof")
		p.ExpectN(2, "^worker up")
	})
	ft.wantErrors(t)
	if !killed(p.Wait()) {
		t.Error(p)
	}
	p.WaitGone()
}

func TestLeftoverProcessesAreReported(t *testing.T) {
	linuxOnly(t)
	for _, flags := range []string{"-leave", "-leave -no-output", "-leave -no-id"} {
		t.Run(flags, func(t *testing.T) {
			t.Parallel()
			ft := &fakeT{}
			var pid string
			var p *Program
			var exited time.Time
			ft.run(func() {
				p = Start(ft, "pool", append(strings.Fields(flags), "-n", "1", "-ignore-eof")...)
				p.orphanGrace = time.Minute // only if a signal kills the program
				pid = p.Expect(`^worker (\d+)$`)[1]
				p.Expect("^ready$")
				p.Signal(syscall.SIGTERM)
				p.Wait()
				exited = time.Now()
			})
			if took := time.Since(exited); took >= p.orphanGrace {
				t.Errorf("Stop took %v", took)
			}
			ft.wantErrors(t, "leftover processes:\n\tpid "+pid+" ")
			if left, err := p.Descendants(); len(left) > 0 || err != nil {
				t.Errorf("still running: %v, %v", left, err)
			}
			if len(ft.logs) != 1 || !strings.Contains(ft.logs[0], " ready") {
				t.Errorf("logs: %q", ft.logs)
			}
		})
	}
}

// So are orphans that ignore that a signal has killed the program.
func TestOrphansAreReported(t *testing.T) {
	linuxOnly(t)
	t.Parallel()
	ft := &fakeT{}
	ft.run(func() {
		p := Start(ft, "pool", "-n", "1", "-ignore-eof")
		p.orphanGrace = 20 * time.Millisecond
		p.Expect("^worker up")
		p.Kill()
		p.Wait()
	})
	ft.wantErrors(t, "leftover processes:")
}

// Stop reports an output that is held by a process it cannot kill: a process of
// another user, or here the test itself.
func TestOutputHeldByUnknownProcess(t *testing.T) {
	linuxOnly(t)
	t.Parallel()
	ft := &fakeT{}
	ft.run(func() {
		p := Start(ft, "pool")
		p.outputGrace = 20 * time.Millisecond
		p.Expect("^ready$")
		w, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", p.PID()), os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
		}
		p.Stop()
		w.Close()
		if !waitClosed(p.eof, 0) {
			t.Error("the reader is still running")
		}
	})
	ft.wantErrors(t, "output held open by an unknown process")
}

func TestParentDeath(t *testing.T) {
	linuxOnly(t)
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := New(t, "nested")
	p.Cmd.ExtraFiles = []*os.File{w}
	p.Start()
	w.Close()
	p.Expect("^nested is ready$")
	gone := make(chan struct{})
	go func() {
		io.Copy(io.Discard, r)
		close(gone)
	}()
	p.Kill()
	if !waitClosed(gone, waitLimit(t)) {
		t.Fatal("the nested program is still running")
	}
}

func init() { Register("nested", nested) }

// nested acts as a test binary that starts a Program and is killed.
func nested() {
	os.Unsetenv(idVar)
	ft := &fakeT{}
	p := selfCommand(ft, programVar+"=pool")
	p.Cmd.Args = p.Cmd.Args[:1]
	p.Cmd.ExtraFiles = []*os.File{os.NewFile(3, "held until exit")}
	p.Start().Expect("^ready$")
	fmt.Println("nested is ready")
	waitUntilKilled()
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	ft := &fakeT{}
	ft.run(func() { Command(ft, exec.Command("/nonexistent/program")).Start() })
	ft.wantErrors(t, "preforktest: program: ")
	if !ft.fatal {
		t.Error("not fatal")
	}
	ft = &fakeT{}
	ft.run(func() { Start(ft, "pool").Start() })
	ft.wantErrors(t, "Start was called twice")
}

func TestSignalAfterExit(t *testing.T) {
	t.Parallel()
	ft := &fakeT{}
	ft.run(func() {
		p := Start(ft, "pool")
		p.Expect("^ready$")
		p.Signal(syscall.SIGTERM)
		p.Wait()
		p.Signal(syscall.SIGTERM)
	})
	ft.wantErrors(t, "exit status 0): signal terminated: ")
}

func TestWaitTimeout(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]func(*Program){
		"still running":     func(p *Program) { p.Wait() },
		"output still open": func(p *Program) { p.WaitGone() },
	} {
		ft := &fakeT{}
		ft.run(func() {
			p := Start(ft, "pool", "-n", "1")
			p.Expect("^worker up")
			ft.deadline = time.Now().Add(10 * time.Millisecond)
			wait(p)
		})
		ft.wantErrors(t, name)
	}
}

// killOwned checks the owner after it has a handle of the process, so a process
// that reuses the id of a descendant is not killed.
func TestKillOwnedSparesOthers(t *testing.T) {
	linuxOnly(t)
	t.Parallel()
	p := Start(t, "pool", "-n", "1", "-ignore-eof", "-leave")
	worker, _ := strconv.Atoi(p.Expect(`^worker (\d+)$`)[1])
	p.Expect("^worker up")

	other := Start(t, "pool")
	other.Expect("^ready$")
	p.killOwned(other.PID()) // as if it had the id of the worker
	other.Signal(syscall.SIGTERM)
	other.Expect("^done$")
	if state := other.Wait(); !state.Success() {
		t.Errorf("the program of another test: %v", state)
	}

	p.killOwned(worker)
	WaitFor(t, "the worker is killed", func() bool {
		zombies, err := Zombies(p.PID())
		return err == nil && len(zombies) == 1 && zombies[0].PID == worker
	})
}

// Start puts stdout and stderr into one pipe, unless the caller has set them.
func TestOutputOfCaller(t *testing.T) {
	t.Parallel()
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := New(t, "print", "out", "err")
	p.Cmd.Stderr = file
	p.Start().Wait()
	p.WaitGone()
	written, err := os.ReadFile(file.Name())
	if got := p.Lines(); !slices.Equal(got, []string{"out"}) || string(written) != "err" || err != nil {
		t.Errorf("lines %q, file %q, %v", got, written, err)
	}
}

// Only SIGKILL can be the signal of Stop.
func TestKilledBySignal(t *testing.T) {
	linuxOnly(t)
	t.Parallel()
	for sig, want := range map[syscall.Signal]bool{syscall.SIGKILL: true, syscall.SIGTERM: false} {
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmd.Process.Signal(sig)
		cmd.Wait()
		if got := killed(cmd.ProcessState); got != want {
			t.Errorf("%v: killed %v, want %v", cmd.ProcessState, got, want)
		}
	}
}
