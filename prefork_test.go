//go:build unix

package prefork_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

// The tests of this package's outside start the test binary again, in the part of one of these programs.
var programs = map[string]func(){
	"original01": original01, "original02": original02, "original04": original04,
	"original05": original05, "original06": original06, "original07": original07,
	"ends": ends, "inert": inert, "run": runProgram, "storm": storm, "ctrlc": ctrlC,
	"orphans": orphans, "idle": idle, "surroundings": surroundings, "reload": reload, "clean": cleanEnds, "respawn": respawn, "hello": hello,
	"marker": marker, "amnesia": amnesia, "nest": nest, "sockets": sockets, "command": command, "pools": pools,
	"busy": busy, "vanish": vanish, "limited": limited, "relapse": relapse, "shifted": shifted, "early": early, "clone": clone, "echo": echo, "cat": cat, "foreign": foreign, "slow": slow, "spare": spare, "burdened": burdened, "suspended": suspended,
	"relatives": relatives, "companion": companion, "standingBy": standingBy, "understudy": understudy,
}

func TestMain(m *testing.M) { preforktest.Main(m, programs) }

// long asks for the counts that README.md and docs/RELIABILITY.md name; without it a test repeats less often.
var long = flag.Bool("long", false, "repeat as often as is promised, not a tenth of it")

// times is how often a test repeats what it does.
func times(n int) int {
	if *long {
		return n
	}
	return max(1, n/10)
}

const (
	hup  = syscall.SIGHUP
	term = syscall.SIGTERM
	usr1 = syscall.SIGUSR1
)

// say writes one line to the test. Lines shorter than 4 KiB of several processes do not mix in a pipe.
func say(format string, args ...any) { fmt.Fprintf(os.Stdout, format+"\n", args...) }

// must makes a Manager, or ends the program.
func must(cfg prefork.Config) *prefork.Manager {
	pm, err := prefork.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	return pm
}

// untilTerm is the main loop of most programs: StartFunc until TERM, then wait for all.
func untilTerm(pm *prefork.Manager, work func(*prefork.Worker) error) {
	for pm.SignalReceived() != term {
		pm.StartFunc(work)
	}
	pm.WaitAllChildren(context.Background())
}

// counter is a number that processes count together: the size of a file to which each appends a byte.
type counter string

func (c counter) add() int {
	f, err := os.OpenFile(string(c), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil { // so that each sees a number of its own
		log.Fatal(err)
	}
	f.Write([]byte{'x'})
	return c.value()
}

func (c counter) value() int {
	info, err := os.Stat(string(c))
	if err != nil {
		return 0
	}
	return int(info.Size())
}

// tell sends a signal to the manager of this worker.
func tell(w *prefork.Worker, sig syscall.Signal) { syscall.Kill(w.ManagerPID(), sig) }

// repeat runs one of the original's tests as often as is promised: 50 times with -long.
func repeat(t *testing.T, test func(*testing.T)) {
	t.Helper()
	for i := range times(50) {
		t.Run(strconv.Itoa(i), test)
	}
}

// expectAll waits for lines that come in any order, each so many times.
func expectAll(p *preforktest.Program, lines map[string]int) {
	for missing := len(lines); missing > 0; {
		line := p.NextLine()
		if lines[line]--; lines[line] == 0 {
			missing--
		}
	}
}

// T1: 01-base.t. Ten workers add one to a counter when they start and one in their TERM handler; the tenth sends TERM to
// the manager. In the end the counter is 20, and the hook ran ten times.
func original01() {
	reaped := 0
	pm := must(prefork.Config{OnChildReap: func(*prefork.Manager, prefork.Exit) { reaped++ }})
	count := counter(os.Args[1])
	for pm.SignalReceived() == nil {
		if pm.Start() {
			continue
		}
		c := make(chan os.Signal, 1)
		signal.Notify(c, term)
		if count.add() == 10 {
			tell(pm.Worker(), term)
		}
		<-c
		count.add()
		pm.Finish(0)
	}
	pm.WaitAllChildren(context.Background())
	say("counter %d reaped %d", count.value(), reaped)
}

func TestOriginal01Base(t *testing.T) {
	repeat(t, func(t *testing.T) {
		p := preforktest.Start(t, "original01", t.TempDir()+"/counter")
		if got := p.Expect(`^counter (\d+) reaped (\d+)$`); got[1] != "20" || got[2] != "10" {
			t.Errorf("%s; want 20 and 10", got[0])
		}
		wantSuccess(t, p)
	})
}

func wantSuccess(t *testing.T, p *preforktest.Program) {
	t.Helper()
	if state := p.Wait(); !state.Success() {
		t.Errorf("the program ended with %v:\n%v", state, p.Lines())
	}
}

// T2: 02-reconfigure.t. One worker; it sends HUP in the first pass and TERM in the second; the loop runs exactly twice.
func original02() {
	pm := must(prefork.Config{MaxWorkers: 1, TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Signal: term}}})
	loops := 0
	for pm.SignalReceived() != term {
		loops++
		pm.StartFunc(func(w *prefork.Worker) error {
			tell(w, map[int]syscall.Signal{1: hup, 2: term}[w.Generation()])
			<-w.Context().Done()
			return nil
		})
	}
	pm.WaitAllChildren(context.Background())
	say("loops %d", loops)
}

func TestOriginal02Reconfigure(t *testing.T) {
	repeat(t, func(t *testing.T) {
		p := preforktest.Start(t, "original02")
		if got := p.Expect(`^loops (\d+)$`); got[1] != "2" {
			t.Errorf("%s; want 2", got[0])
		}
		wantSuccess(t, p)
	})
}

// T4: 04-interval.t. Three workers, one second between two spawns, two between two of the signals forwarded. Here, where
// machines are slow at times, the pauses are shorter and are seen to be no shorter than asked for; their exact length is
// seen in TestOriginal04Interval of the Manager in a bubble.
func original04() {
	const spawn, stop = 100 * time.Millisecond, 200 * time.Millisecond
	var spawned, signalled time.Time // read before the pause that follows can have begun
	stopping := 0
	pm := must(prefork.Config{
		MaxWorkers: 3, SpawnInterval: spawn, TrapSignals: prefork.Signals{term: {Signal: term, Interval: stop}},
		BeforeSpawn: func(*prefork.Manager, *prefork.Spawn) {
			if !spawned.IsZero() && time.Since(spawned) < spawn {
				say("too soon: spawn after %v", time.Since(spawned))
			}
			spawned = time.Now()
		},
		Observe: func(ev prefork.Event) {
			switch ev := ev.(type) {
			case prefork.SignalEvent:
				signalled = time.Now()
			case prefork.StateEvent:
				if ev.Worker.State != prefork.StateStopping {
					return
				}
				if at := time.Since(signalled); at < time.Duration(stopping)*stop {
					say("too soon: signal %d after %v", stopping, at)
				}
				stopping++
			}
		},
	})
	for pm.SignalReceived() != term {
		pm.StartFunc(func(w *prefork.Worker) error {
			ctx := w.Context()
			say("up")
			<-ctx.Done()
			return nil
		})
	}
	say("left at once %d", pm.NumWorkers())
	pm.WaitAllChildren(context.Background())
	say("left %d", pm.NumWorkers())
}

func TestOriginal04IntervalOfProcesses(t *testing.T) {
	repeat(t, func(t *testing.T) {
		p := preforktest.Start(t, "original04")
		p.ExpectN(3, `^up$`)
		p.Signal(term)
		p.Expect(`^left at once 3$`)
		p.Expect(`^left 0$`)
		wantSuccess(t, p)
		for _, line := range p.Lines() {
			if len(line) > 8 && line[:8] == "too soon" {
				t.Error(line)
			}
		}
	})
}

// T5: 05-before_after_fork.t. Three workers that end at once; the one before which BeforeSpawn had run ten times sends
// TERM. Both hooks ran ten times and more.
func original05() {
	before, after := 0, 0
	pm := must(prefork.Config{
		MaxWorkers: 3, ErrRespawnInterval: -1,
		BeforeSpawn: func(*prefork.Manager, *prefork.Spawn) { before++ },
		AfterSpawn: func(_ *prefork.Manager, pid int) {
			if pid > 0 {
				after++
			}
		},
	})
	untilTerm(pm, func(w *prefork.Worker) error {
		if w.Ordinal() == 10 {
			tell(w, term)
		}
		return nil
	})
	say("before %d after %d", before, after)
}

func TestOriginal05BeforeAfterSpawn(t *testing.T) {
	repeat(t, func(t *testing.T) {
		p := preforktest.Start(t, "original05")
		got := p.Expect(`^before (\d+) after (\d+)$`)
		if len(got[1]) < 2 || len(got[2]) < 2 {
			t.Errorf("%s; want at least 10 of both", got[0])
		}
		wantSuccess(t, p)
	})
}

// T6: 06-wait-all-children-timeout.t. Thirty workers; the k-th ends after ceil(k/10) TERMs. The limit of each wait is
// drawn when those that end are gone, and the next signal sent when the test has seen that all others got theirs.
func original06() {
	reaped, enough := 0, func() {}
	pm := must(prefork.Config{MaxWorkers: 30, OnChildReap: func(*prefork.Manager, prefork.Exit) {
		if reaped++; reaped%10 == 0 {
			enough()
		}
	}})
	for pm.SignalReceived() != term {
		pm.StartFunc(func(w *prefork.Worker) error {
			c := make(chan os.Signal, 1)
			signal.Notify(c, term)
			say("up")
			for n := 1; ; n++ {
				<-c
				if n == (w.Ordinal()+9)/10 {
					return nil
				}
				say("got")
			}
		})
	}
	lines := bufio.NewScanner(os.Stdin)
	for range 2 {
		ctx, cancel := context.WithCancel(context.Background())
		enough = cancel
		left, _ := pm.WaitAllChildren(ctx)
		say("left %d", left)
		lines.Scan() // the test has seen that all others got their signal
		pm.SignalAllChildren(term)
	}
	left, err := pm.WaitAllChildren(context.Background())
	say("at last %d %v reaped %d", left, err, reaped)
}

func TestOriginal06WaitTimeoutOfProcesses(t *testing.T) {
	repeat(t, func(t *testing.T) {
		p := preforktest.New(t, "original06")
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		p.Cmd.Stdin = r
		p.Start()
		r.Close()
		p.ExpectN(30, `^up$`)
		p.Signal(term)
		for _, left := range []int{20, 10} {
			expectAll(p, map[string]int{"got": left, fmt.Sprint("left ", left): 1})
			fmt.Fprintln(w, "go on")
		}
		p.Expect(`^at last 0 <nil> reaped 30$`)
		wantSuccess(t, p)
	})
}

// T7: 07-wait-all-children-does-not-block.t. Thirty workers end 0.99 to 1.01 s after TERM, around the limit of the wait;
// the whole must end in less than five seconds.
func original07() {
	pm := must(prefork.Config{MaxWorkers: 30})
	for pm.SignalReceived() != term {
		pm.StartFunc(func(w *prefork.Worker) error {
			ctx := w.Context()
			say("up")
			<-ctx.Done()
			time.Sleep(time.Second + time.Duration(w.Slot()%3-1)*10*time.Millisecond)
			return nil
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	began := time.Now()
	pm.WaitAllChildren(ctx)
	left, err := pm.WaitAllChildren(context.Background())
	say("left %d %v in time %t", left, err, time.Since(began) < 5*time.Second)
}

func TestOriginal07WaitDoesNotBlockWithProcesses(t *testing.T) {
	repeat(t, func(t *testing.T) {
		p := preforktest.Start(t, "original07")
		p.ExpectN(30, `^up$`)
		p.Signal(term)
		p.Expect(`^left 0 <nil> in time true$`)
		wantSuccess(t, p)
	})
}
