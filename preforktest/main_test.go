package preforktest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m, nil) }

// fakeT replaces a test that fails or is skipped.
type fakeT struct {
	testing.TB
	errors, logs   []string
	fatal, skipped bool
	cleanups       []func()
	deadline       time.Time
	tempDir        string
}

func (t *fakeT) Helper()                     {}
func (t *fakeT) Failed() bool                { return len(t.errors) > 0 }
func (t *fakeT) Cleanup(f func())            { t.cleanups = append(t.cleanups, f) }
func (t *fakeT) Deadline() (time.Time, bool) { return t.deadline, !t.deadline.IsZero() }
func (t *fakeT) TempDir() string             { return t.tempDir }
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
func (t *fakeT) Skipf(format string, args ...any) {
	t.Logf(format, args...)
	t.skipped = true
	runtime.Goexit()
}

// run runs test and its cleanups in one goroutine, as package testing does, and
// returns after them.
func (t *fakeT) run(test func()) {
	done := make(chan struct{})
	go func() {
		defer close(done) // also after Goexit
		defer func() {
			for _, f := range t.cleanups {
				defer f() // in reverse order
			}
		}()
		test()
	}()
	<-done
}

// wantErrors fails the real test unless there is one error that contains each
// of these, and no other.
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

// selfCommand returns the test binary as a command that never runs tests.
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

// A test binary that a test starts without the name of a program would start
// itself without end.
func TestRefusesToRunTests(t *testing.T) {
	t.Parallel()
	p := selfCommand(t).Start()
	p.Expect(`tests refused.*PREFORKTEST_ID`)
	if code := p.Wait().ExitCode(); code != 2 {
		t.Errorf("exit code %d", code)
	}
	p = selfCommand(t, programVar+"=nonsense").Start()
	p.Expect(`program "nonsense" of PREFORKTEST_PROGRAM is not registered`)
	if code := p.Wait().ExitCode(); code != 2 {
		t.Errorf("exit code %d", code)
	}
}

func init() { Register("again", again) }

// again starts its binary with an empty environment.
func again() {
	path, _ := os.Executable()
	cmd := exec.Command(path, os.Args[1:]...)
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Run()
	os.Exit(cmd.ProcessState.ExitCode())
}

func TestRefusesWithoutEnvironment(t *testing.T) {
	linuxOnly(t)
	t.Parallel()
	p := Start(t, "again", "-test.run=^$")
	p.Expect(`tests refused.*the parent, \d+, runs the same binary`)
	if code := p.Wait().ExitCode(); code != 2 {
		t.Errorf("exit code %d", code)
	}
	if !sameCommand(os.Getpid()) || sameCommand(os.Getppid()) {
		t.Error("sameCommand: wrong result for this process or its parent")
	}
}

func TestNewRefusesUnknownProgram(t *testing.T) {
	t.Parallel()
	ft := &fakeT{}
	ft.run(func() { Start(ft, "nonsense") })
	ft.wantErrors(t, `program "nonsense": not registered: call Register`)
}

func init() { Register("suite", suite) }

// suite is a run of tests that leaks the resource of its argument.
func suite() {
	leak := os.Args[1]
	programs := newRegistry()
	programs.register("stale", &entry{run: func() {}})
	code := runTests(func() int {
		fmt.Println("running")
		switch leak {
		case "goroutine":
			go forever()
		case "descriptor":
			r, _, _ := os.Pipe()
			kept = append(kept, r)
		case "child":
			cmd := exec.Command(os.Args[0], "nothing")
			cmd.Stdout = os.Stdout // WaitGone waits for it
			if err := cmd.Start(); err != nil {
				panic(err)
			}
			kept = append(kept, cmd)
		case "failure":
			return 3
		case "used":
			programs.use("stale")
		}
		return 0
	}, programs, 50*time.Millisecond)
	os.Exit(code)
}

// kept protects leaked resources from the garbage collector.
var kept []any

func forever() { <-make(chan struct{}) }

func TestRunTests(t *testing.T) {
	for leak, want := range map[string]string{
		"goroutine":  `^preforktest: leaked goroutine:`,
		"descriptor": `^preforktest: leaked descriptor: \d+ pipe:`,
		"child":      `^preforktest: leftover child process: pid \d+`,
		"nothing":    `^preforktest: no test starts program "stale"`,
	} {
		t.Run(leak, func(t *testing.T) {
			linuxOnly(t)
			t.Parallel()
			p := Start(t, "suite", leak)
			p.Expect("^running$")
			p.Expect(want)
			if code := p.Wait().ExitCode(); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			p.WaitGone()
		})
	}
	for leak, want := range map[string]int{"used": 0, "failure": 3} {
		p := Start(t, "suite", leak)
		if code := p.Wait().ExitCode(); code != want {
			t.Errorf("%s: exit code %d, want %d", leak, code, want)
		}
		p.WaitGone()
		if got := p.Lines(); !slices.Equal(got, []string{"running"}) {
			t.Errorf("%s: %q", leak, got)
		}
	}
}

// A run is incomplete if a flag excludes tests.
func TestCompleteRun(t *testing.T) {
	flags := map[string]string{
		"test.run": "x", "test.skip": "x", "test.short": "true", "test.list": "x", "test.count": "0",
	}
	for name := range flags {
		f := flag.Lookup(name)
		defer flag.Set(name, f.Value.String())
		flag.Set(name, f.DefValue)
	}
	if !completeRun() {
		t.Error("the run without flags is not complete")
	}
	for name, value := range flags {
		flag.Set(name, value)
		if completeRun() {
			t.Errorf("the run with -%s=%s is complete", name, value)
		}
		flag.Set(name, flag.Lookup(name).DefValue)
	}
}
