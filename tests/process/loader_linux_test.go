package process_test

import (
	"debug/elf"
	"log"
	"os"
	"strings"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/binary"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("loaded", loaded) }

// loaded prints the error of New, or serves.
func loaded() {
	command, err := os.ReadFile("/proc/self/cmdline")
	if err != nil {
		log.Fatal(err)
	}
	all := strings.Split(strings.TrimSuffix(string(command), "\x00"), "\x00")
	lists := [][]string{nil, all} // a library in another program has all arguments
	if len(os.Args) > 1 && os.Args[1] == "direct" {
		lists = append(lists, os.Args[:1])
	}
	for _, args := range lists {
		if _, _, ok := binary.Loader(args); ok {
			testprog.Print("a loader, by %q", args)
		}
	}
	pm, err := prefork.New(prefork.Config{MaxWorkers: 1, Reaper: len(os.Args) > 1 && os.Args[1] == "reaper"})
	if err != nil {
		testprog.Print("New: %v", err)
		return
	}
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		testprog.Print("worker")
		<-w.Context().Done()
		return nil
	})
}

// interpreter returns the loader that this test binary names.
func interpreter(t *testing.T) string {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			name := make([]byte, p.Filesz)
			if _, err := p.ReadAt(name, 0); err != nil {
				t.Fatal(err)
			}
			return strings.TrimRight(string(name), "\x00")
		}
	}
	preforktest.Missingf(t, "the test binary is linked statically: install a C compiler")
	return ""
}

// A process that was started through its loader could only start the loader again,
// without the program. New reports it, before it starts anything.
func TestStartedThroughLoader(t *testing.T) {
	loader := interpreter(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ options, args []string }{
		"alone":     {nil, nil},
		"arguments": {nil, []string{"a", ""}},
		"options":   {[]string{"--library-path", "/nowhere"}, []string{"a"}},
		"reaper":    {nil, []string{"reaper"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := preforktest.New(t, "loaded", c.args...)
			p.Cmd.Path = loader
			p.Cmd.Args = append(append(append([]string{loader}, c.options...), program), c.args...)
			p.Start()
			p.Expect(`^New: prefork: .* was started through a loader, .*ld.*: start the program itself$`)
			testprog.ExpectSuccess(t, p)
			if lines := p.Lines(); len(lines) > 1 {
				t.Errorf("%q", lines)
			}
		})
	}
	p := preforktest.Start(t, "loaded", "direct")
	p.Expect(`^worker$`)
	p.Signal(term)
	testprog.ExpectSuccess(t, p)
	for _, line := range p.Lines() {
		if strings.Contains(line, "a loader") {
			t.Error(line)
		}
	}
}
