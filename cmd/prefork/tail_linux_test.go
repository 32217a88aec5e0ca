package main

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/preforktest"
)

// prefork tail prints the last lines of the workers of prefork run.
func TestRunTail(t *testing.T) {
	t.Parallel()
	dir := testprog.SocketDir(t)
	socket := filepath.Join(dir, "web.prefork.sock")
	p := preforktest.Start(t, "prefork", "run", "-n", "2", "--name", "web", "--control", socket, "--ready", "at-once",
		"--", "sh", "-c", `for i in 1 2 3; do echo %i line $i; done; printf 'esc \033 \377\n' >&2; exec sleep 1000`)
	p.ExpectAll("^0 line 3$", "^1 line 3$", "^esc", "^esc")
	// The sink has these lines, and so the tail has them.
	for _, row := range []struct{ args, want string }{
		{"--slot 0", `^(\S+ \S+  0/\d+  .*\n){4}$`}, // the two streams are in any order
		{"--slot 1 -n 1", `^\S+ \S+  1/\d+  (1 line 3|esc   \xff)\n$`},
		{"", `^(\S+ \S+  [01]/\d+  .*\n){8}$`},
		{"--slot 7", `^$`},
		{"-n 0 --slot 0", `^$`},
	} {
		status, stdout, stderr := command(append([]string{"-s", socket, "tail"}, strings.Fields(row.args)...)...)
		if status != 0 || !regexp.MustCompile(strings.ReplaceAll(row.want, `\xff`, `.`)).MatchString(stdout) || strings.Contains(stdout, "\x1b") {
			t.Errorf("tail %s: status %d, %q, %q", row.args, status, stdout, stderr)
		}
	}
	status, stdout, _ := command("-s", socket, "--json", "tail", "--slot", "1")
	var tail client.Tail
	if err := json.Unmarshal([]byte(stdout), &tail); status != 0 || err != nil || tail.Pool != "web" || len(tail.Lines) != 4 {
		t.Errorf("--json: %d, %v: %s", status, err, stdout)
	}
	if status, _, stderr := command("-s", socket, "tail", "-n", "-1"); status != 2 {
		t.Errorf("-n -1: %d, %s", status, stderr)
	}
	p.Signal(syscall.SIGTERM)
	testprog.ExpectSuccess(t, p)

	p = preforktest.Start(t, "prefork", "run", "--log", "none", "--control", socket, "--ready", "at-once", "--", "sleep", "1000")
	p.Expect("settled")
	if status, _, stderr := command("-s", socket, "tail"); status == 0 || !strings.Contains(stderr, "keeps no lines") {
		t.Errorf("without a log: %d, %s", status, stderr)
	}
	p.Signal(syscall.SIGTERM)
	testprog.ExpectSuccess(t, p)
}
