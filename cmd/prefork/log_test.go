//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

// Log takes its arguments as they are, and has the exit status of svlogd.
func TestLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := preforktest.New(t, "prefork", "log", "-p", "-1 ", filepath.Join(dir, "scale"))
	p.Cmd.Stdin = strings.NewReader("a line\n")
	if state := p.Start().Wait(); !state.Success() {
		t.Errorf("%v: %v", state, p.Lines())
	}
	if content, err := os.ReadFile(filepath.Join(dir, "scale", "current")); err != nil || string(content) != "-1 a line\n" {
		t.Errorf("%q, %v", content, err)
	}
	p = preforktest.Start(t, "prefork", "log", "/nonexistent/log")
	if status := p.Wait().ExitCode(); status != 111 {
		t.Errorf("exit %d", status)
	}
	for args, want := range map[string]int{"log": 100, "log -y x": 100, "log --help": 0, "log -h": 0} {
		if status, out, errs := command(strings.Fields(args)...); status != want || (out == "") != (want != 0) || (errs == "") != (want == 0) {
			t.Errorf("%s: exit %d, %q, %q", args, status, out, errs)
		}
	}
}
