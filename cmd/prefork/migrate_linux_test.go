package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

// Ten services move from runsvdir to prefork watch and back without a change: sv of
// runit shows the same of them, and the files of supervise/ keep type and mode.
func TestWatchMigration(t *testing.T) {
	t.Parallel()
	runsvdir := preforktest.NeedCommand(t, "runsvdir", "Debian: apt-get install runit")
	sv := preforktest.NeedCommand(t, "sv", "Debian: apt-get install runit")
	preforktest.NeedCommand(t, "svlogd", "Debian: apt-get install runit")
	preforktest.NeedCommand(t, "chpst", "Debian: apt-get install runit")
	base := t.TempDir()
	dir := filepath.Join(base, "services")
	const sleep = "exec sleep 1000"
	for path, content := range map[string]string{
		"services/plain/run":   sleep,
		"services/patient/run": "trap 'exit 0' TERM; while :; do sleep 0.1; done",
		"services/web/run":     "echo line of $$; exec sleep 1000", "services/web/log/run": "mkdir -p main; exec svlogd main",
		"services/fin/run": sleep, "services/fin/finish": `echo "$1 $2" >>ends`,
		"services/checked/run": sleep, "services/checked/check": "exit 0",
		"services/off/run": sleep, "services/off/down": "",
		"services/scripted/run": sleep, "services/scripted/control/t": `echo t >>scripts; kill -KILL "$(cat supervise/pid)"`,
		"services/env/run": "exec chpst -e env sh -c 'echo \"$HELLO\" >value; exec sleep 1000'", "services/env/env/HELLO": "hello",
		"services/crash/run": "exit 3",
		"elsewhere/run":      sleep,
	} {
		path = filepath.Join(base, path)
		if filepath.Base(path) != "HELLO" {
			content = "#!/bin/sh\n" + content + "\n"
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../elsewhere", filepath.Join(dir, "linked")); err != nil {
		t.Fatal(err)
	}
	numbers := regexp.MustCompile(`\(pid \d+\)|\d+s\b`)
	show := func(verb string, names ...string) string {
		cmd := exec.Command(sv, append([]string{"-w", "20", verb}, names...)...)
		cmd.Env = append(os.Environ(), "SVDIR="+dir)
		out, _ := cmd.Output() // its status is the number of services that are not up
		lines := strings.Split(numbers.ReplaceAllString(string(out), "N"), "\n")
		slices.Sort(lines) // sv prints them as they get ready
		return strings.Join(lines, "\n")
	}
	up := []string{"checked", "env", "fin", "linked", "patient", "plain", "scripted", "web"}
	files := func() string {
		var b strings.Builder
		for _, name := range append([]string{"crash", "off", "web/log"}, up...) {
			for _, f := range []string{"", "control", "lock", "ok", "pid", "stat", "status"} {
				info, err := os.Lstat(filepath.Join(dir, name, "supervise", f))
				mode := fs.FileMode(0)
				if err == nil {
					mode = info.Mode()
				}
				b.WriteString(name + "/" + f + " " + mode.String() + "\n")
			}
		}
		return b.String()
	}
	var before, first string
	for i, start := range []func() *preforktest.Program{
		func() *preforktest.Program { return preforktest.Command(t, exec.Command(runsvdir, dir)).Start() },
		func() *preforktest.Program {
			return preforktest.Start(t, "prefork", "watch", "--control", "off", "--log", "none", dir)
		},
		func() *preforktest.Program { return preforktest.Command(t, exec.Command(runsvdir, dir)).Start() },
	} {
		p := start()
		run := func() {
			preforktest.WaitFor(t, "services of sv", func() bool {
				return strings.Count(show("status", up...), "run: ") == len(up)+1 && strings.Contains(show("status", "off"), "down: off: N")
			})
		}
		run()
		text := show("restart", up...) + show("check", "checked")
		run() // in the second of a start, sv does not wait for the next one
		text += show("status", append([]string{"off"}, up...)...)
		switch {
		case i == 0:
			first, before = text, files()
		case text != first:
			t.Errorf("step %d: sv shows\n%s\nwant\n%s", i, text, first)
		}
		if now := files(); now != before {
			t.Errorf("step %d: files are\n%s\nwant\n%s", i, now, before)
		}
		if i == 1 {
			p.Signal(syscall.SIGTERM)
		} else {
			p.Signal(syscall.SIGHUP)
		}
		p.Wait()
		p.WaitGone()
	}
}
