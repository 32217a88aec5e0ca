package preforktest

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The program "pool" starts copies of itself as workers, whose standard input is a pipe that only it holds. It ends on
// SIGTERM, with its workers; what it does wrong is chosen by flags, which its workers get too.
var _ = register("pool", func() {
	var (
		n      = flag.Int("n", 0, "workers")
		leave  = flag.Bool("leave", false, "leave the workers behind")
		deaf   = flag.Bool("deaf", false, "workers do not notice the end of the pool")
		mute   = flag.Bool("mute", false, "workers close their output")
		bare   = flag.Bool("bare", false, "workers do not get the ID of the test")
		worker = flag.Bool("worker", false, "be a worker")
	)
	flag.Parse()
	if *worker {
		poolWorker(*deaf)
		return
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	r, w, _ := os.Pipe()
	var workers []*exec.Cmd
	for range *n {
		cmd := exec.Command(os.Args[0], append([]string{"-worker"}, os.Args[1:]...)...)
		cmd.Stdin = r
		if !*mute {
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		}
		if *bare {
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
})

func poolWorker(deaf bool) {
	fmt.Println("worker up", os.Getpid())
	io.Copy(io.Discard, os.Stdin)
	if deaf {
		untilKilled()
	}
}

// untilKilled waits for a signal that nobody sends; a program that waits for less dies of "all goroutines are asleep".
func untilKilled() {
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

// Orphans of a killed program are given the time to notice.
func TestKillAndWaitGone(t *testing.T) {
	t.Parallel()
	ft := &fakeT{}
	ft.run(func() {
		p := Start(ft, "pool", "-n", "2")
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

// What is still running when the test ends is ended without further ado.
func TestStopOfRunningProgram(t *testing.T) {
	t.Parallel()
	ft := &fakeT{}
	var p *Program
	ft.run(func() {
		p = Start(ft, "pool", "-n", "2", "-deaf")
		p.ExpectN(2, "^worker up")
	})
	ft.wantErrors(t)
	if !killed(p.Wait()) {
		t.Error(p)
	}
	p.WaitGone()
}

func TestStragglersAreReported(t *testing.T) {
	linuxOnly(t)
	for _, flags := range []string{"-leave", "-leave -mute", "-leave -bare"} {
		t.Run(flags, func(t *testing.T) {
			t.Parallel()
			ft := &fakeT{}
			var pid string
			var p *Program
			ft.run(func() {
				p = Start(ft, "pool", append(strings.Fields(flags), "-n", "1", "-deaf")...)
				pid = p.Expect(`^worker (\d+)$`)[1]
				p.Expect("^ready$")
				p.Signal(syscall.SIGTERM)
				p.Wait()
			})
			ft.wantErrors(t, "left processes behind:\n\tpid "+pid+" ")
			if left, err := p.Descendants(); len(left) > 0 || err != nil {
				t.Errorf("not ended: %v, %v", left, err)
			}
			if len(ft.logs) != 1 || !strings.Contains(ft.logs[0], " ready") {
				t.Errorf("logs: %q", ft.logs)
			}
		})
	}
}

// The same for orphans that do not notice that a signal has killed the program.
func TestOrphansAreReported(t *testing.T) {
	linuxOnly(t)
	t.Parallel()
	ft := &fakeT{}
	ft.run(func() {
		p := Start(ft, "pool", "-n", "1", "-deaf")
		p.grace = 20 * time.Millisecond
		p.Expect("^worker up")
		p.Kill()
		p.Wait()
	})
	ft.wantErrors(t, "left processes behind")
}

// A holder of the output that Stop cannot end, such as a process of another user, or here the test itself.
func TestOutputHeldByUnknown(t *testing.T) {
	linuxOnly(t)
	t.Parallel()
	ft := &fakeT{}
	ft.run(func() {
		p := Start(ft, "pool")
		p.drain = 20 * time.Millisecond
		p.Expect("^ready$")
		w, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", p.PID()), os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
		}
		p.Stop()
		w.Close()
		if !waitClosed(p.eof, 0) {
			t.Error("the reader has not ended")
		}
	})
	ft.wantErrors(t, "held open by a process that cannot be found or ended")
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
		t.Fatal("the nested program lives on")
	}
}

// The program "nested" is in the place of a test binary: it starts a Program and dies.
var _ = register("nested", func() {
	os.Unsetenv(idVar)
	ft := &fakeT{}
	p := selfCommand(ft, programVar+"=pool")
	p.Cmd.Args = p.Cmd.Args[:1]
	p.Cmd.ExtraFiles = []*os.File{os.NewFile(3, "held until the end")}
	p.Start().Expect("^ready$")
	fmt.Println("nested is ready")
	untilKilled()
})

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
	ft.wantErrors(t, "Start was called before")
}

func TestSignalAfterEnd(t *testing.T) {
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

func TestWaitTooLong(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]func(*Program){
		"it has not ended":         func(p *Program) { p.Wait() },
		"its output is still open": func(p *Program) { p.WaitGone() },
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
