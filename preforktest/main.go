package preforktest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// The environment by which a test and the programs that it starts know each other.
const (
	programVar = "PREFORKTEST_PROGRAM" // the name under which Main finds what to run
	idVar      = "PREFORKTEST_ID"      // one value a Program: whatever carries it descends from that Program
)

// registry is what Main was given, and which of it the tests used.
var registry struct {
	sync.Mutex
	programs map[string]func()
	used     map[string]bool
}

// Main is to be called by TestMain, and does not return. If the process was started by Start or New, or is a worker
// of such a process, Main runs the program of that name, with os.Args[1:] as its arguments and its flags not yet
// parsed, and exits with status 0 when it returns.
//
// Otherwise Main runs the tests and exits with their status. If they passed it fails the run all the same, saying why
// on stderr, when
//   - a program was given to New or Start by no test, and the run was complete: without -run, -skip, -short and such
//     (a program of tests that are skipped on some system is to be registered on the others only);
//   - the test binary has a child process, live or a zombie, that it did not have before;
//   - goroutines or descriptors are left that were not there before. They are given 10 seconds to go. Goroutines of
//     os/signal do not count. Descriptors are read from /proc/self/fd on Linux, tried one by one on other Unix systems,
//     and not compared elsewhere.
//
// Programs that the tests start have the default effect of SIGHUP, SIGINT and SIGQUIT, also where the tests run under nohup
// or in the background of a shell, which have them ignored.
//
// A test binary that was started by itself without the name of a program, because what started it had lost its
// environment, would run the tests that start it again, and so on without end. Main refuses to run tests in a
// process that carries the environment of a Program, or whose parent is the same binary with the same arguments.
func Main(m *testing.M, programs map[string]func()) {
	if name, ok := os.LookupEnv(programVar); ok {
		program := programs[name]
		if program == nil {
			fmt.Fprintf(os.Stderr, "preforktest: Main was given no program %q, which %s names\n", name, programVar)
			os.Exit(2)
		}
		program()
		os.Exit(0)
	}
	if reason := startedItself(); reason != "" {
		fmt.Fprintf(os.Stderr, "preforktest: no tests are run here, as they would start themselves without end: %s\n", reason)
		os.Exit(2)
	}
	flag.Parse()
	unignore()
	os.Exit(runTests(m.Run, programs, leakWait))
}

// startedItself says why this process must be a child of its own tests, or nothing.
func startedItself() string {
	if id := os.Getenv(idVar); id != "" {
		return fmt.Sprintf("%s=%s is set but not %s; unset it if they are to run", idVar, id, programVar)
	}
	if sameCommand(os.Getppid()) {
		return fmt.Sprintf("the parent, %d, runs the same binary with the same arguments", os.Getppid())
	}
	return ""
}

// sameCommand tells whether the process runs the binary of this one with the arguments of this one. A test that starts
// its own binary deliberately gives it another argument, such as -test.run. Where there is no /proc it says no.
func sameCommand(pid int) bool {
	proc := fmt.Sprintf("/proc/%d/", pid)
	theirs, err1 := os.Stat(proc + "exe")
	ours, err2 := os.Stat("/proc/self/exe")
	if err1 != nil || err2 != nil || !os.SameFile(theirs, ours) {
		return false
	}
	theirArgs, err1 := os.ReadFile(proc + "cmdline")
	ourArgs, err2 := os.ReadFile("/proc/self/cmdline")
	_, theirArgs, _ = bytes.Cut(theirArgs, []byte{0}) // the name may differ: /proc/self/exe in a worker
	_, ourArgs, _ = bytes.Cut(ourArgs, []byte{0})
	return err1 == nil && err2 == nil && bytes.Equal(theirArgs, ourArgs)
}

// runTests is Main in the process of the tests; what they leave has until limit to go.
func runTests(run func() int, programs map[string]func(), limit time.Duration) int {
	registry.Lock()
	registry.programs, registry.used = programs, make(map[string]bool)
	registry.Unlock()

	before := takeSnapshot()
	code := run()
	// A worker of go test -fuzz runs no test of its own, and the parent of such workers is not done with them.
	if code != 0 || flagSet("test.fuzz") || flagSet("test.fuzzworker") {
		return code
	}
	faults := before.waitNoLeaks(limit)
	if _, err := Children(os.Getpid()); errors.Is(err, errors.ErrUnsupported) && anyChild() {
		faults = append(faults, "a child process is left")
	}
	if completeRun() {
		faults = append(faults, unusedPrograms()...)
	}
	for _, fault := range faults {
		fmt.Fprintf(os.Stderr, "preforktest: %s\n", fault)
		code = 1
	}
	return code
}

// completeRun tells whether every test was run.
func completeRun() bool {
	return !flagSet("test.run") && !flagSet("test.skip") && !flagSet("test.short") && !flagSet("test.list") &&
		flag.Lookup("test.count").Value.String() != "0"
}

func flagSet(name string) bool {
	f := flag.Lookup(name)
	return f != nil && f.Value.String() != f.DefValue
}

// unusedPrograms keeps programs from outliving the test that they were written for.
func unusedPrograms() (faults []string) {
	registry.Lock()
	defer registry.Unlock()
	for name := range registry.programs {
		if !registry.used[name] {
			faults = append(faults, fmt.Sprintf("no test starts program %q", name))
		}
	}
	slices.Sort(faults)
	return faults
}

// useProgram notes that a test uses the program, and says what is wrong if none of that name can be started.
func useProgram(name string) error {
	registry.Lock()
	defer registry.Unlock()
	if registry.used == nil {
		// The child would run the tests, this one too, and so on.
		return errors.New("TestMain must call Main")
	}
	if registry.programs[name] == nil {
		return fmt.Errorf("Main was given no program %q", name)
	}
	registry.used[name] = true
	return nil
}

// fatalWait is how long a thing that must happen may take. It is long because only a test that fails reaches it.
const fatalWait = 30 * time.Second

// leakWait is how long what is about to end may take to do so; it is spent only in a test that fails.
const leakWait = 10 * time.Second

// waitLimit is fatalWait, or less when the deadline of the test is near: the panic of go test -timeout would run no
// cleanup and show no output of the program.
func waitLimit(t testing.TB) time.Duration {
	if d, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		if deadline, ok := d.Deadline(); ok {
			return max(0, min(fatalWait, time.Until(deadline)*9/10))
		}
	}
	return fatalWait
}

// WaitFor calls ok again and again until it returns true, for things that nobody is told of when they happen: the end
// of a process that is not a child, a number that another process reports. It fails the test with what, as t.Fatalf
// does, if that takes too long.
func WaitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if limit := waitLimit(t); !poll(limit, ok) {
		t.Fatalf("preforktest: %s: not so after %v", what, limit)
	}
}

// poll calls ok until it is true, and tells whether it was within limit.
func poll(limit time.Duration, ok func() bool) bool {
	end := time.Now().Add(limit)
	runtime.Gosched() // what is only waiting for its turn to end gets it
	for pause := 100 * time.Microsecond; !ok(); pause = min(2*pause, 50*time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(pause)
	}
	return true
}
