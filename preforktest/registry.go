package preforktest

import (
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Register registers a program for New and Start, which run it in a process of
// its own. It should be called by an init function in the file of the tests
// that start the program:
//
//	func init() { preforktest.Register("server", main) }
//
// Main fails a complete run in which no test has started the program, unless a
// test in the same file was skipped by Skipf or another function of this
// package. The whole call stack counts, so either call may be in a helper
// function of another file.
//
// Register panics if the name is taken, if program is nil, or if Main is
// already running the tests.
func Register(name string, program func()) {
	registered.register(name, &entry{run: program, files: callerFiles()})
}

// RegisterOptional is Register for a program that a complete run may leave
// unused. It should be used only for programs of a package that several test
// packages share, or if the tests start the program depending on the system.
func RegisterOptional(name string, program func()) {
	registered.register(name, &entry{run: program, optional: true})
}

// registered holds the programs of this test binary.
var registered = newRegistry()

// A registry holds programs by name and records which of them the tests use.
type registry struct {
	mu      sync.Mutex
	entries map[string]*entry
	running bool // runTests has begun
	skips   int
	skipped map[string]bool // the files of the skipped tests
}

type entry struct {
	run      func()
	files    []string // nil for an entry of Main's map
	optional bool
	used     bool
}

func newRegistry() *registry {
	return &registry{
		entries: make(map[string]*entry),
		skipped: make(map[string]bool),
	}
}

func (r *registry) register(name string, e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case e.run == nil:
		panic(fmt.Sprintf("preforktest: program %q is a nil function", name))
	case r.running:
		panic(fmt.Sprintf("preforktest: program %q is registered too late: "+
			"register it in an init function", name))
	case r.entries[name] != nil:
		panic(fmt.Sprintf("preforktest: two programs are named %q", name))
	}
	r.entries[name] = e
}

// lookup returns the program of this name, or nil.
func (r *registry) lookup(name string) func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entries[name]; e != nil {
		return e.run
	}
	return nil
}

// startTests ends the registration.
func (r *registry) startTests() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = true
}

// use records that a test starts the program.
func (r *registry) use(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.running {
		// The child would run the tests, including this one, without end.
		return errors.New("TestMain must call Main")
	}
	e := r.entries[name]
	if e == nil {
		return errors.New("not registered: call Register in an init function")
	}
	e.used = true
	return nil
}

// skip records that a test in one of these files was skipped.
func (r *registry) skip(files []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.skips++
	for _, file := range files {
		r.skipped[file] = true
	}
}

// unused reports the programs that no test has started although none of their
// tests was skipped.
func (r *registry) unused() (faults []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, e := range r.entries {
		if e.used || e.optional || r.excused(e) {
			continue
		}
		faults = append(faults, fmt.Sprintf("no test starts program %q: remove it; "+
			"or skip its tests by Skipf in the file that registers it; "+
			"or use RegisterOptional", name))
	}
	slices.Sort(faults)
	return faults
}

// excused reports whether a test that may use the program was skipped. The
// file of a program in Main's map is unknown, so any skipped test excuses it.
func (r *registry) excused(e *entry) bool {
	if e.files == nil {
		return r.skips > 0
	}
	return slices.ContainsFunc(e.files, func(file string) bool { return r.skipped[file] })
}

var packagePath = reflect.TypeFor[Program]().PkgPath()

// callerFiles returns the files on the stack of the calling goroutine, except
// those that all stacks share: the runtime, package testing and this package.
func callerFiles() (files []string) {
	pcs := make([]uintptr, 128)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		frame, more := frames.Next()
		own := strings.HasPrefix(frame.Function, packagePath+".") &&
			!strings.HasSuffix(frame.File, "_test.go")
		if !own && frame.File != "" && !strings.HasPrefix(frame.Function, "runtime.") &&
			!strings.HasPrefix(frame.Function, "testing.") {
			files = append(files, frame.File)
		}
		if !more {
			return files
		}
	}
}
