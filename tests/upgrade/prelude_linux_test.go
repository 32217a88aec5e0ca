package upgrade_test

import (
	"context"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("prelude", prelude) }

// prelude changes its directory by a relative name before New, as code does that
// does not know that it runs again in workers.
func prelude() {
	before, _ := os.Getwd()
	if err := os.Chdir("sub"); err != nil {
		log.Fatal(err)
	}
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 1, ErrRespawnInterval: -1,
		TrapSignals: prefork.Signals{term: {Signal: term}, hup: {Rolling: true}, syscall.SIGUSR2: {Upgrade: true}},
		Observe: func(ev prefork.Event) {
			switch ev := ev.(type) {
			case prefork.GenerationEvent:
				testprog.Print("generation of %s", ev.Program)
			case prefork.UpgradeEvent:
				testprog.Print("upgrade to %s", ev.Program)
			}
		},
	})
	if !prefork.IsWorker() {
		testprog.Print("manager %d started in %s", os.Getpid(), before)
	}
	err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		now, _ := os.Getwd()
		testprog.Print("worker started in %s, works in %s", before, filepath.Base(now))
		<-w.Context().Done()
		return nil
	})
	testprog.Print("ended %v", err)
}

// Workers and successors start in the directory in which the program was started,
// by the name that it has for the program: a link may lead elsewhere later. If the
// directory is gone, workers start in the present one, and an upgrade fails.
func TestStartDirectory(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"1/sub", "2/sub"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	current := filepath.Join(top, "current")
	os.Symlink("1", current)
	p := preforktest.New(t, "prelude")
	p.Cmd.Dir, p.Cmd.Env = current, append(p.Cmd.Env, "PWD="+current)
	p.Start()
	p.Expect(`^manager \d+ started in ` + current + `$`)
	p.Expect(`^worker started in ` + current + `, works in sub$`)
	os.Remove(current)
	os.Symlink("2", current)
	p.Signal(hup)
	p.Expect(`^worker started in ` + current + `, works in sub$`)

	os.RemoveAll(current)
	p.Signal(syscall.SIGUSR2)
	p.Expect(`upgrade failed.*the directory in which the program was started is missing: stat ` + current)
	os.Symlink("2", current)
	p.Signal(syscall.SIGUSR2)
	successor := p.Expect(`^manager (\d+) started in ` + current + `$`)[1]
	p.ExpectAll(`^worker started in `+current+`, works in sub$`, `^ended <nil>$`)
	end(p, successor)
}

// Events and the log have the file that runs, and the log that another is on disk.
func TestReplacedProgram(t *testing.T) {
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	os.Mkdir(filepath.Join(top, "sub"), 0o700)
	path := filepath.Join(top, "server")
	install := func() {
		t.Helper()
		os.Remove(path)
		if err := os.WriteFile(path, exe, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	install()
	p := preforktest.New(t, "prelude")
	p.Cmd.Path, p.Cmd.Dir = path, top
	p.Start()
	p.Expect(`^generation of ` + path + `$`)
	p.Expect(`^worker started in ` + top)
	p.Signal(hup)
	p.Expect(`^generation of ` + path + `$`)
	p.Expect(`workers replaced`)
	install()
	p.Signal(hup)
	p.ExpectAll(`program on disk is another.* disk=`+path, `^generation of `+path+`$`, `workers replaced`)
	p.Signal(syscall.SIGUSR2)
	p.Expect(`^upgrade to ` + path + `$`)
	successor := p.Expect(`^manager (\d+) started in `)[1]
	p.Expect(`^ended <nil>$`)
	end(p, successor)
	if n := strings.Count(strings.Join(p.Lines(), "\n"), "program on disk"); n != 1 {
		t.Errorf("%d lines about the program on disk, want 1", n)
	}
}

// end stops the successor of p.
func end(p *preforktest.Program, successor string) {
	pid, _ := strconv.Atoi(successor)
	syscall.Kill(pid, term)
	p.WaitGone()
}
