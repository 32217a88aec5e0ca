package preforktest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"
)

// A program recognizes by these variables that a test started it.
const (
	programVar = "PREFORKTEST_PROGRAM" // the name of the program that Main runs
	mainVar    = "PREFORKTEST_MAIN"    // set while Main runs tests; prefork.New warns without it
	idVar      = "PREFORKTEST_ID"      // identifies a Program and its descendants
)

// Main runs the tests, or a program in their place. TestMain must call it. Main
// does not return.
//
// In a process that was started by Start or New, or by such a process, Main
// runs the program of that name. Its arguments are os.Args[1:], its flags are
// not parsed, and it exits with status 0 when the function returns. The programs
// in the map are added to those of Register. The map may be nil. Main panics if
// a name is registered twice.
//
// Otherwise Main runs the tests and exits with their status. If the tests
// passed, Main nevertheless fails the run, with a message on stderr, if
//   - no test has started a program, the run was complete, that is without
//     -run, -skip, -short and the like, and no test that may use the program
//     was skipped. For a program registered by Register, those are the tests in
//     the same file; for one in the map, all tests. Only skips by Skipf and
//     other functions of this package count;
//   - the test binary has a child process, live or a zombie, that it did not
//     have before;
//   - goroutines or descriptors are left over. They have 10 seconds to
//     disappear. Goroutines of os/signal do not count. Descriptors are read
//     from /proc/self/fd on Linux, tried one by one on other Unix systems, and
//     ignored elsewhere.
//
// Programs start with the default effect of SIGHUP, SIGINT and SIGQUIT, even if
// these are ignored in the test binary because it runs under nohup or in the
// background of a shell.
//
// A test binary that starts itself without the name of a program would run the
// tests again, which start it again, without end. Therefore Main refuses to run
// tests if the environment is that of a Program, or if the parent is the same
// binary with the same arguments.
func Main(m *testing.M, programs map[string]func()) {
	for name, program := range programs {
		registered.register(name, &entry{run: program})
	}
	if name, ok := os.LookupEnv(programVar); ok {
		program := registered.lookup(name)
		if program == nil {
			fmt.Fprintf(os.Stderr, "preforktest: program %q of %s is not registered: "+
				"call Register in an init function\n", name, programVar)
			os.Exit(2)
		}
		program()
		os.Exit(0)
	}
	if reason := recursion(); reason != "" {
		fmt.Fprintf(os.Stderr,
			"preforktest: tests refused, they would start themselves without end: %s\n", reason)
		os.Exit(2)
	}
	flag.Parse()
	os.Setenv(mainVar, "1")
	restoreIgnoredSignals()
	os.Exit(runTests(m.Run, registered, leakTimeout))
}

// recursion returns the reason why this process must be a child of its own
// tests, or "".
func recursion() string {
	if id := os.Getenv(idVar); id != "" {
		return fmt.Sprintf("%s=%s is set without %s: unset it to run the tests", idVar, id, programVar)
	}
	if sameCommand(os.Getppid()) {
		return fmt.Sprintf("the parent, %d, runs the same binary with the same arguments",
			os.Getppid())
	}
	return ""
}

// sameCommand reports whether the process runs the binary of this one with the
// same arguments. A test that starts its own binary on purpose passes another
// argument, such as -test.run. Without /proc the result is false.
func sameCommand(pid int) bool {
	proc := fmt.Sprintf("/proc/%d/", pid)
	otherExe, err1 := os.Stat(proc + "exe")
	exe, err2 := os.Stat("/proc/self/exe")
	if err1 != nil || err2 != nil || !os.SameFile(otherExe, exe) {
		return false
	}
	otherArgs, err1 := os.ReadFile(proc + "cmdline")
	args, err2 := os.ReadFile("/proc/self/cmdline")
	// The names may differ: a worker's is /proc/self/exe.
	_, otherArgs, _ = bytes.Cut(otherArgs, []byte{0})
	_, args, _ = bytes.Cut(args, []byte{0})
	return err1 == nil && err2 == nil && bytes.Equal(otherArgs, args)
}

// runTests is Main in the process of the tests. Leaks have until limit to
// disappear.
func runTests(run func() int, programs *registry, limit time.Duration) int {
	programs.startTests()
	before := takeSnapshot()
	code := run()
	// A worker of go test -fuzz runs no test of its own, and the workers of its
	// parent are still running.
	if code != 0 || flagSet("test.fuzz") || flagSet("test.fuzzworker") {
		return code
	}
	faults := before.waitNoLeaks(limit)
	if _, err := Children(os.Getpid()); errors.Is(err, errors.ErrUnsupported) && reapChild() {
		faults = append(faults, "leftover child process")
	}
	if completeRun() {
		faults = append(faults, programs.unused()...)
	}
	for _, fault := range faults {
		fmt.Fprintf(os.Stderr, "preforktest: %s\n", fault)
		code = 1
	}
	return code
}

// completeRun reports whether the flags select all tests.
func completeRun() bool {
	return !flagSet("test.run") && !flagSet("test.skip") && !flagSet("test.short") &&
		!flagSet("test.list") && flag.Lookup("test.count").Value.String() != "0"
}

func flagSet(name string) bool {
	f := flag.Lookup(name)
	return f != nil && f.Value.String() != f.DefValue
}
