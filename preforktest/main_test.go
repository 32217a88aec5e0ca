package preforktest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var programs = make(map[string]func())

// register adds a program, beside the test that uses it.
func register(name string, program func()) struct{} {
	if programs[name] != nil {
		panic("two programs " + name)
	}
	programs[name] = program
	return struct{}{}
}

func TestMain(m *testing.M) { Main(m, programs) }

// fakeT stands for a test that fails, which a real one may not.
type fakeT struct {
	testing.TB
	errors, logs []string
	fatal        bool
	cleanups     []func()
	deadline     time.Time
}

func (t *fakeT) Helper()                     {}
func (t *fakeT) Failed() bool                { return len(t.errors) > 0 }
func (t *fakeT) Cleanup(f func())            { t.cleanups = append(t.cleanups, f) }
func (t *fakeT) Deadline() (time.Time, bool) { return t.deadline, !t.deadline.IsZero() }
func (t *fakeT) Logf(format string, args ...any) {
	t.logs = append(t.logs, fmt.Sprintf(format, args...))
}
func (t *fakeT) Errorf(format string, args ...any) {
	t.errors = append(t.errors, fmt.Sprintf(format, args...))
}
func (t *fakeT) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	t.fatal = true
	runtime.Goexit()
}

// run runs test and its cleanups in one goroutine, as package testing does, and returns when they are done.
func (t *fakeT) run(test func()) {
	done := make(chan struct{})
	go func() {
		defer close(done) // also after Goexit
		defer func() {
			for _, f := range t.cleanups {
				defer f() // the last first
			}
		}()
		test()
	}()
	<-done
}

// wantErrors wants one error that contains each of these, and no other.
func (t *fakeT) wantErrors(real *testing.T, wants ...string) {
	real.Helper()
	ok := len(t.errors) == len(wants)
	for i, want := range wants {
		ok = ok && strings.Contains(t.errors[i], want)
	}
	if !ok {
		real.Errorf("errors: %q\nwant: %q", t.errors, wants)
	}
}

// selfCommand runs the test binary, in a process that does not run tests whatever happens.
func selfCommand(t testing.TB, env ...string) *Program {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatalf("%v", err)
	}
	p := Command(t, exec.Command(path, "-test.run=^$"))
	p.Cmd.Env = append(p.Cmd.Env, env...)
	return p
}

// A test binary that is started by a test but is to be no program would start itself again.
func TestRefusesToRunTests(t *testing.T) {
	t.Parallel()
	p := selfCommand(t).Start()
	p.Expect(`no tests are run here.*PREFORKTEST_ID`)
	if code := p.Wait().ExitCode(); code != 2 {
		t.Errorf("exit code %d", code)
	}
	p = selfCommand(t, programVar+"=nonsense").Start()
	p.Expect(`given no program "nonsense"`)
	if code := p.Wait().ExitCode(); code != 2 {
		t.Errorf("exit code %d", code)
	}
}

var _ = register("again", func() {
	path, _ := os.Executable()
	cmd := exec.Command(path, os.Args[1:]...)
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Run()
	os.Exit(cmd.ProcessState.ExitCode())
})

// A worker that is started with an empty environment is the worst case of the above.
func TestRefusesWithoutEnvironment(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	t.Parallel()
	p := Start(t, "again", "-test.run=^$")
	p.Expect(`no tests are run here.*the parent, \d+, runs the same binary`)
	if code := p.Wait().ExitCode(); code != 2 {
		t.Errorf("exit code %d", code)
	}
	if !sameCommand(os.Getpid()) || sameCommand(os.Getppid()) {
		t.Error("sameCommand: wrong about this process or its parent")
	}
}

func TestNewRefusesUnknownProgram(t *testing.T) {
	t.Parallel()
	ft := &fakeT{}
	ft.run(func() { Start(ft, "nonsense") })
	ft.wantErrors(t, `program "nonsense": Main was given no program`)
}

// suite is a run of tests that leaves things behind, as its arguments say.
var _ = register("suite", func() {
	leave := os.Args[1]
	code := runTests(func() int {
		fmt.Println("running")
		switch leave {
		case "goroutine":
			go forever()
		case "descriptor":
			r, _, _ := os.Pipe()
			kept = append(kept, r)
		case "child":
			cmd := exec.Command(os.Args[0], "nothing")
			cmd.Stdout = os.Stdout // so that WaitGone waits for it
			if err := cmd.Start(); err != nil {
				panic(err)
			}
			kept = append(kept, cmd)
		case "failure":
			return 3
		case "used":
			useProgram("stale")
		}
		return 0
	}, map[string]func(){"stale": func() {}}, 50*time.Millisecond)
	os.Exit(code)
})

// kept keeps the garbage collector from tidying up.
var kept []any

func forever() { <-make(chan struct{}) }

func TestRunTests(t *testing.T) {
	for leave, want := range map[string]string{
		"goroutine":  `^preforktest: goroutine left:`,
		"descriptor": `^preforktest: descriptor left: \d+ pipe:`,
		"child":      `^preforktest: child process left: pid \d+`,
		"nothing":    `^preforktest: no test starts program "stale"`,
	} {
		t.Run(leave, func(t *testing.T) {
			if runtime.GOOS != "linux" {
				t.Skip("messages of /proc")
			}
			t.Parallel()
			p := Start(t, "suite", leave)
			p.Expect("^running$")
			p.Expect(want)
			if code := p.Wait().ExitCode(); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			p.WaitGone()
		})
	}
	for leave, want := range map[string]int{"used": 0, "failure": 3} {
		p := Start(t, "suite", leave)
		if code := p.Wait().ExitCode(); code != want {
			t.Errorf("%s: exit code %d, want %d", leave, code, want)
		}
		p.WaitGone()
		if got := p.Lines(); !slices.Equal(got, []string{"running"}) {
			t.Errorf("%s: %q", leave, got)
		}
	}
}

func TestWaitFor(t *testing.T) {
	t.Parallel()
	n := 0
	WaitFor(t, "three calls", func() bool { n++; return n == 3 })
	if n != 3 {
		t.Errorf("%d calls", n)
	}
	ft := &fakeT{deadline: time.Now().Add(20 * time.Millisecond)}
	ft.run(func() { WaitFor(ft, "the impossible", func() bool { return false }) })
	ft.wantErrors(t, "the impossible: not so after")
	if !ft.fatal {
		t.Error("not fatal")
	}
}

func TestWaitLimit(t *testing.T) {
	t.Parallel()
	for left, want := range map[time.Duration]time.Duration{
		0:                fatalWait, // no deadline
		time.Hour:        fatalWait,
		10 * time.Second: 9 * time.Second,
		-time.Second:     0,
	} {
		ft := &fakeT{}
		if left != 0 {
			ft.deadline = time.Now().Add(left)
		}
		if got := waitLimit(ft); got > want || got < want-5*time.Second {
			t.Errorf("deadline in %v: %v, want %v", left, got, want)
		}
	}
}
