//go:build unix

package main

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

// Exec executes a program in the place of the command, whose arguments stay as
// they are, and a link of a name that it knows acts as that program.
func TestExec(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "A"), []byte("a value"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := preforktest.Start(t, "prefork", "exec", "-e", dir, "-b", "name", "--", "sh", "-c", `echo "$$ $0 $A $*"; exit 3`, "scale", "-1", "--restart", "-h")
	line := p.NextLine()
	if status := p.Wait().ExitCode(); status != 3 || !strings.HasSuffix(line, " scale a value -1 --restart -h") || !strings.HasPrefix(line, strconv.Itoa(p.PID())+" ") {
		t.Errorf("exit %d, %q", status, line)
	}
	link := filepath.Join(dir, "envdir")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	p = preforktest.New(t, "prefork", dir, "sh", "-c", `echo "$A"`)
	p.Cmd.Args[0] = link
	p.Start()
	p.Expect("^a value$")
	p.Wait()
	for args, want := range map[string]int{"exec": 100, "exec -z": 100, "exec -C /nonexistent true": 111, "exec --help": 0, "exec -h": 0} {
		if status, out, errs := command(strings.Fields(args)...); status != want || (out == "") != (want != 0) || (errs == "") != (want == 0) {
			t.Errorf("%s: exit %d, %q, %q", args, status, out, errs)
		}
	}
}

// The flags of other verbs cost some 800 allocations.
func TestExecAndLogStartAtOnce(t *testing.T) {
	for _, verb := range []string{"exec", "log"} {
		n := testing.AllocsPerRun(5, func() {
			if status := run([]string{verb, "-y"}, io.Discard, io.Discard); status != 100 {
				t.Errorf("%s: exit %d, want 100", verb, status)
			}
		})
		if n > 300 {
			t.Errorf("%s: %v allocations", verb, n)
		}
	}
}
